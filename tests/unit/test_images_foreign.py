"""Images for other CPUs, by their boot loaders; disks as the guest sees them; mutated images."""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

import pytest

from armvm.base import process
from armvm.base.errors import ArmvmError, CommandFailed, ImageError
from armvm.base.limits import Limits
from armvm.base.progress import Quiet
from armvm.images.cache.store import Cache
from armvm.images.check.cpu import refuse_foreign_boot
from armvm.images.check.efi import boot_loaders
from armvm.images.check.formats import DiskFormat, read_head, recognise
from armvm.images.check.guest_disk import GuestDisk, Unreadable, opened
from armvm.images.check.qcow2 import inspect
from armvm.images.digest import hash_file
from armvm.images.model import FromImage
from armvm.images.obtain import obtain
from tests.images_tools import leftovers

pytestmark = pytest.mark.unit

MIB = 1 << 20
SIZE = 80 * MIB
START = 3 * MIB


def disk(
    path: Path, *loaders: str, size: str = "40M", table: str = "gpt", fat: tuple[str, ...] = ()
) -> Path:
    """Make a raw disk with one EFI system partition that has *loaders* in \\EFI\\BOOT."""
    with path.open("wb") as file:
        file.truncate(SIZE)
    kind = "U" if table == "gpt" else "ef"
    script = f"label: {table}\nstart={START // 512}, size={size}iB, type={kind}\n"
    process.run(["sfdisk", "--quiet", path], input=script.encode())
    drive = f"{path}@@{START}"
    sectors = str(int(size[:-1]) * 2048)
    process.run(["mformat", "-i", drive, "-T", sectors, "-h", "64", "-s", "32", *fat, "::"])
    # Some before it, so that the directory does not begin with what is looked for.
    for directory in ("::/loader", "::/EFI", "::/EFI/debian", "::/EFI/BOOT"):
        process.run(["mmd", "-i", drive, directory])
    content = path.with_suffix(".efi")
    content.write_bytes(random.Random(0).randbytes(3000))
    for name in ("a long name of some file.txt", *loaders):
        process.run(["mcopy", "-i", drive, content, f"::/EFI/BOOT/{name}"])
    content.unlink()
    return path


def packed(raw: Path, *options: str) -> Path:
    path = raw.with_suffix(f".{len(list(raw.parent.iterdir()))}.qcow2")
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, path])
    return path


def loaders_of(path: Path, format: DiskFormat) -> frozenset[str]:
    with opened(path) as file:
        return boot_loaders(GuestDisk(file, format))


@pytest.mark.parametrize(
    ("size", "table", "fat"),
    [
        ("2M", "gpt", ()),  # FAT12
        ("40M", "gpt", ()),  # FAT16
        ("70M", "gpt", ("-F", "-c", "1")),  # FAT32
        ("40M", "dos", ()),
    ],
)
def test_boot_loaders_are_found(
    tmp_path: Path, size: str, table: str, fat: tuple[str, ...]
) -> None:
    raw = disk(tmp_path / "d.raw", "BOOTX64.EFI", "grubx64.efi", size=size, table=table, fat=fat)
    found = loaders_of(raw, DiskFormat.RAW)
    assert {"BOOTX64.EFI", "GRUBX64.EFI"} <= found
    assert "BOOTAA64.EFI" not in found
    for options in ((), ("-c",), ("-o", "cluster_size=512"), ("-o", "cluster_size=2M", "-c")):
        assert loaders_of(packed(raw, *options), DiskFormat.QCOW2) == found


def test_what_the_guest_sees_is_what_qemu_says(tmp_path: Path) -> None:
    raw = tmp_path / "d.raw"
    noise = random.Random(0).randbytes
    raw.write_bytes(noise(MIB) + bytes(3 * MIB) + b"text " * 100_000 + noise(70_000))
    with raw.open("r+b") as file:
        file.truncate(5 * MIB)  # a whole number of sectors
    data = raw.read_bytes()
    dice = random.Random(4)
    for options in ((), ("-c",), ("-o", "compat=0.10"), ("-o", "cluster_size=4k")):
        image = packed(raw, *options)
        with opened(image) as file:
            for _ in range(60):
                seen = GuestDisk(file, DiskFormat.QCOW2)
                assert seen.size == len(data)
                start = dice.randrange(len(data))
                length = dice.randrange(min(200_000, len(data) - start))
                assert seen.read(start, length) == data[start : start + length]
            with pytest.raises(Unreadable):
                seen.read(len(data) - 1, 2)
            with pytest.raises(Unreadable, match="read limit exceeded"):
                GuestDisk(file, DiskFormat.QCOW2, budget=MIB).read(0, 2 * MIB)


@pytest.mark.parametrize(
    "options", [("-c", "-o", "compression_type=zstd"), ("-o", "extended_l2=on")]
)
def test_forms_that_are_not_read_are_passed(tmp_path: Path, options: tuple[str, ...]) -> None:
    image = packed(disk(tmp_path / "d.raw", "BOOTX64.EFI"), *options)
    with pytest.raises(Unreadable):
        loaders_of(image, DiskFormat.QCOW2)
    refuse_foreign_boot(image, DiskFormat.QCOW2, "x")


@pytest.mark.parametrize("qcow2", [True, False])
def test_an_amd64_image_is_refused(tmp_path: Path, qcow2: bool) -> None:
    raw = disk(tmp_path / "disk.raw", "BOOTX64.EFI", "BOOTIA32.EFI")
    image = packed(raw) if qcow2 else raw
    cache = Cache(tmp_path / "cache")
    source = FromImage(reference="x", location=str(image))
    with pytest.raises(
        ImageError, match=r"an image for amd64: it boots with BOOTX64\.EFI"
    ) as caught:
        obtain(source, cache=cache, progress=Quiet())
    assert caught.value.exit_code == 8
    assert leftovers(cache.root) == []
    with pytest.raises(ImageError) as caught:
        refuse_foreign_boot(raw, DiskFormat.RAW, "https://x/noble-server-cloudimg-amd64.img")
    assert "https://x/noble-server-cloudimg-arm64.img" in (caught.value.hint or "")


@pytest.mark.parametrize("loaders", [("BOOTAA64.EFI",), ("BOOTX64.EFI", "BOOTAA64.EFI"), ()])
def test_images_for_arm64_and_for_nobody_pass(tmp_path: Path, loaders: tuple[str, ...]) -> None:
    raw = disk(tmp_path / "disk.raw", *loaders)
    source = FromImage(reference="x", location=str(packed(raw)))
    obtain(source, cache=Cache(tmp_path / "cache"), progress=Quiet())


def test_disks_without_sense_pass(tmp_path: Path) -> None:
    """Whatever lies on the disk: an answer, or no answer, but no error and no endless loop."""
    sound = disk(tmp_path / "d.raw", "BOOTX64.EFI", size="2M").read_bytes()
    path = tmp_path / "mutant.raw"
    dice = random.Random(44)
    with path.open("wb") as file:
        file.write(sound)
    spots = [(512, 1024), (446, 512), (1024, 2048), (START, START + 64), (START, START + 40_000)]
    outcomes = set()
    for _ in range(300):
        edits = [dice.randrange(*dice.choice(spots)) for _ in range(dice.randrange(1, 9))]
        with path.open("r+b") as file:
            for at in edits:
                file.seek(at)
                file.write(dice.choice([b"\xff", b"\0", b"\xff" * 8, dice.randbytes(4)]))
        try:
            refuse_foreign_boot(path, DiskFormat.RAW, "x")
            outcomes.add("passed")
        except ImageError:
            outcomes.add("refused")
        with path.open("r+b") as file:
            for at in edits:
                file.seek(at)
                file.write(sound[at : at + 8])
    assert outcomes == {"passed", "refused"}


# --- 300 mutated qcow2 headers --------------------------------------------------------------

#: What interesting numbers look like in the fields of a header.
_VALUES = (0, 1, 2, 3, 4, 7, 8, 9, 16, 21, 22, 63, 64, 104, 112, 512, 65535, 65536, 1 << 31)
_LARGE = (0xFFFFFFFF, 1 << 40, (1 << 62) + 512, (1 << 63) - 1, (1 << 64) - 1)
_EXTENSIONS = (0xE2792ACA, 0x44415441, 0x0537BE77, 0x6803F857, 0x23852875, 0x12345678)


def mutant(sound: bytes, dice: random.Random) -> bytes:
    """Return a qcow2 image whose header says something else in one or two places."""
    data = bytearray(sound)
    for _ in range(dice.randrange(1, 3)):
        kind = dice.randrange(5)
        if kind == 0:
            data[dice.randrange(4, 104)] ^= 1 << dice.randrange(8)
        elif kind == 1:
            offset = dice.choice((4, 16, 20, 32, 36, 56, 60, 96, 100))
            data[offset : offset + 4] = struct.pack(">I", dice.choice((*_VALUES, 0xFFFFFFFF)))
        elif kind == 2:
            offset = dice.choice((8, 24, 40, 48, 64, 72, 80, 88))
            data[offset : offset + 8] = struct.pack(">Q", dice.choice((*_VALUES, *_LARGE)))
        elif kind == 3:
            name = b"/etc/passwd"
            words = struct.pack(">II", dice.choice(_EXTENSIONS), dice.choice((0, 11, 16, 1 << 30)))
            data[112 : 112 + 8 + len(name)] = words + name
        else:  # a backing file, as the format has it
            data[8:20] = struct.pack(">QI", 600, 11)
            data[600:611] = b"/etc/passwd"
    return bytes(data[: dice.choice((None, None, None, None, 70, 104, 111, 200, 70_000))])


WATCHED = """
import json, sys
opened = []
def note(event, args):
    if event == "open" and not isinstance(args[0], int):  # a descriptor that is open already
        opened.append(str(args[0]))
sys.addaudithook(note)
from pathlib import Path
from armvm.base.errors import ArmvmError
from armvm.images.check.formats import DiskFormat, read_head, recognise
from armvm.images.check.cpu import refuse_foreign_boot
from armvm.images.check.qcow2 import inspect
ends = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    del opened[:]
    try:
        format = recognise(read_head(path), path.name)
        assert format is DiskFormat.QCOW2
        inspect(path)
        refuse_foreign_boot(path, format, path.name)
        end = "taken"
    except ArmvmError as error:
        end = type(error).__name__
    ends[path.name] = [end, sorted(set(opened))]
print(json.dumps(ends))
"""


def test_300_mutated_headers(tmp_path: Path) -> None:
    """No traceback, no hang, no other file.

    Which files our own code opens, Python's audit hook tells: every open() goes by it, and the
    code starts no program. What is taken is then opened by QEMU, under limits of time and
    memory, which tells the files that it would use.
    """
    sound = tmp_path / "sound"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", sound, "64M"])
    data = sound.read_bytes()
    place = tmp_path / "mutants"
    place.mkdir()
    dice = random.Random(300)
    for number in range(300):
        (place / f"{number:03}").write_bytes(mutant(data, dice))
    done = process.run([sys.executable, "-c", WATCHED, place], timeout=100)
    ends = json.loads(done.text)
    assert len(ends) == 300
    for name, (end, opened_files) in ends.items():
        assert end in ("taken", "HostileImage"), name
        assert set(opened_files) <= {str(place / name)}, name
    taken = [name for name, (end, _) in ends.items() if end == "taken"]
    assert 20 < len(taken) < 280
    for name in taken:
        assert only_itself(place / name), name


def only_itself(path: Path) -> bool:
    """Ask QEMU itself, with the format named, what the image would have it open."""
    limits = Limits(memory=1 << 30, cpu=10)
    words = ["qemu-img", "info", "-f", "qcow2", "--output=json", str(path)]
    try:
        told = json.loads(process.run(words, timeout=20, limits=limits).text)
    except CommandFailed as error:
        return "/etc/passwd" not in (error.detail or "")  # it is damaged in another way
    specific = told.get("format-specific", {}).get("data", {})
    return not {"backing-filename", "full-backing-filename"} & told.keys() and not (
        {"data-file", "encrypt"} & specific.keys()
    )


def test_that_question_sees_other_files(tmp_path: Path) -> None:
    """The test above is worth what this one sees."""
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "base", "64M"])
    for options in (
        ["-b", str(tmp_path / "base"), "-F", "qcow2"],
        ["-o", f"data_file={tmp_path / 'data'}"],
    ):
        path = tmp_path / "overlay"
        process.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "64M"])
        assert not only_itself(path)
        with pytest.raises(ArmvmError):
            inspect(path)
    assert only_itself(tmp_path / "base")


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (24, struct.pack(">Q", 1 << 42), "L1 table is too short"),
        (60, struct.pack(">IQ", 1, 65537), "snapshot"),
        (60, struct.pack(">IQ", 60_000, 65536), "snapshot"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, offset: int, value: bytes, why: str) -> None:
    path = tmp_path / "a"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"])
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    with pytest.raises(ImageError, match=why):
        inspect(path)


def test_a_head_is_enough_to_tell(tmp_path: Path) -> None:
    raw = disk(tmp_path / "d.raw", "BOOTAA64.EFI")
    assert recognise(read_head(raw), "x") is DiskFormat.RAW
    assert recognise(read_head(packed(raw)), "x") is DiskFormat.QCOW2
    assert hash_file(raw).startswith("sha256:")
