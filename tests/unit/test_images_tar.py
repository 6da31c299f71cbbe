"""A disk in a tar archive, as Kali publishes it: every form of tar's, and archives that lie."""

from __future__ import annotations

import lzma
import random
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armvm.base.errors import ArmvmError, HostileImage, ImageError, StorageError
from armvm.base.progress import Quiet
from armvm.images import tar_disk
from armvm.images.cache.store import Cache
from armvm.images.check.qcow2 import inspect
from armvm.images.digest import hash_file
from armvm.images.fetch.decompress import MAX_UNPACKED
from armvm.images.model import FromImage
from armvm.images.obtain import obtain
from armvm.images.resolve import resolve
from tests.catalog_trees import kali_tree, list_directories
from tests.image_server import ImageServer
from tests.images_tools import leftovers, quick
from tests.unit.test_images_foreign import disk as bootable

pytestmark = pytest.mark.unit

MIB = 1 << 20
#: How GNU tar writes a file with holes, and without.
FORMS = {
    "plain": ["--format=gnu"],
    "ustar": ["--format=ustar"],
    "pax": ["--format=pax"],
    "old sparse": ["--format=gnu", "--sparse"],
    "sparse 0.0": ["--format=pax", "--sparse", "--sparse-version=0.0"],
    "sparse 0.1": ["--format=pax", "--sparse", "--sparse-version=0.1"],
    "sparse 1.0": ["--format=pax", "--sparse", "--sparse-version=1.0"],
}


def fits(_size: int) -> None:
    """Say that there is room."""


def with_holes(path: Path) -> Path:
    """Write a file of 20 MiB with 60 pieces of data in it, and a hole at its end."""
    noise = random.Random(0)
    with path.open("wb") as file:
        file.truncate(20 * MIB)
        for number in range(60):
            file.seek(number * 300_000 // 4096 * 4096)
            file.write(noise.randbytes(5000))
    return path


def archive_of(path: Path, *options: str, name: str = "disk.raw") -> Path:
    target = path.with_suffix(".tar")
    words = ["tar", *options, "-C", str(path.parent), "-cf", str(target), name]
    subprocess.run(words, check=True)
    return target


def extracted(archive: Path, room: Callable[[int], None] = fits) -> Path:
    target = archive.with_suffix(".out")
    target.touch()
    tar_disk.extract(archive, target, name="x.tar.xz", room=room)
    return target


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_of_tar(tmp_path: Path, form: list[str]) -> None:
    raw = with_holes(tmp_path / "disk.raw")
    archive = archive_of(raw, *form)
    assert tar_disk.is_tar(archive.read_bytes()[:512])
    out = extracted(archive)
    assert out.read_bytes() == raw.read_bytes()
    assert out.stat().st_blocks * 512 < 10 * MIB, "holes stay holes"


def test_a_directory_before_the_disk(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    raw = with_holes(tmp_path / "d" / "disk.raw")
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(archive), "./d"], check=True)
    assert extracted(archive).read_bytes() == raw.read_bytes()


def member(name: str, data: bytes = b"", **fields: object) -> bytes:
    one = tarfile.TarInfo(name)
    one.size = len(data)
    for key, value in fields.items():
        setattr(one, key, value)
    return one.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)


def sparse(extents: list[tuple[int, int]], real: int, data: bytes, *, more: bytes = b"") -> bytes:
    """Return a file with holes in GNU's old form, of which everything may be a lie."""
    head = bytearray(member("disk.raw", type=tarfile.GNUTYPE_SPARSE))
    head[124:136] = b"%011o\0" % (len(data) + len(more))
    for number, pair in enumerate(extents):
        for half, value in enumerate(pair):
            at = 386 + 24 * number + 12 * half
            head[at : at + 12] = b"%011o\0" % value
    head[482:483] = b"\1" if more else b"\0"
    head[483:495] = b"%011o\0" % real
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + more + data + bytes(-len(data) % 512)


def pax(records: bytes) -> bytes:
    return member("pax", records, type=tarfile.XHDTYPE)


HOSTILE = {
    "two files": member("a", b"1") + member("b", b"2") + END,
    "no file": member("d", type=tarfile.DIRTYPE) + END,
    "nothing": END,
    "a link": member("disk.raw", type=tarfile.SYMTYPE, linkname="/etc/shadow") + END,
    "a hard link": member("disk.raw", type=tarfile.LNKTYPE, linkname="/etc/shadow") + END,
    "a device": member("disk.raw", type=tarfile.BLKTYPE, devmajor=8) + END,
    "truncated": member("disk.raw", bytes(5000))[:2000],
    "too large": member("disk.raw", size=MAX_UNPACKED + 1) + END,
    "extents beyond the end": sparse([(0, 512), (8192, 512)], 4096, bytes(1024)) + END,
    "extents in disorder": sparse([(8192, 512), (512, 512)], 16384, bytes(1024)) + END,
    "more data than there is": sparse([(1 << 20, 1 << 30)], 2 << 30, bytes(512)) + END,
    "a long map": sparse([(512, 1)] * 4, 1 << 30, b"", more=(bytes(504) + b"\1" * 8) * 20_000),
    "a large pax header": pax(b"") + bytes(tar_disk.MAX_HEADERS),
    "a pax header that lies": member("p", type=tarfile.XHDTYPE, size=1 << 40) + END,
    "a pax size that lies": pax(b"22 size=1099511627776\n") + member("disk.raw") + END,
    "a pax map that is none": pax(b"26 GNU.sparse.map=1,2,z,4\n") + member("disk.raw") + END,
    "a negative pax map": pax(b"27 GNU.sparse.map=-5,5,0,1\n") + member("disk.raw", b"1") + END,
    "many directories": member("d", type=tarfile.DIRTYPE) * 9000 + member("disk.raw", b"1") + END,
    "headers of headers": pax(b"9 path=x\n") * 2000 + member("disk.raw", b"1") + END,
    "a long name": member("n", type=tarfile.GNUTYPE_LONGNAME, size=1 << 40) + END,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_archives_that_lie_are_refused(tmp_path: Path, data: bytes) -> None:
    archive = tmp_path / "x.tar"
    archive.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(HostileImage) as caught:
            extracted(archive)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.hint
    assert "x.tar.xz" in caught.value.message


def test_any_change_gives_an_answer(tmp_path: Path) -> None:
    noise = random.Random(1)
    raw = with_holes(tmp_path / "disk.raw")
    for form in FORMS.values():
        good = archive_of(raw, *form).read_bytes()[: 64 * 1024]
        for number in range(60):
            data = bytearray(good)
            for _ in range(1 + number % 3):
                data[noise.randrange(4096)] = noise.randrange(256)
            archive = tmp_path / "changed.tar"
            archive.write_bytes(data)
            with pytest.raises(ArmvmError):
                extracted(archive)


def test_without_room_nothing_is_written(tmp_path: Path) -> None:
    archive = archive_of(with_holes(tmp_path / "disk.raw"))
    asked: list[int] = []

    def full(size: int) -> None:
        asked.append(size)
        raise StorageError("no room")

    with pytest.raises(StorageError):
        extracted(archive, full)
    assert asked[0] >= 20 * MIB
    assert archive.with_suffix(".out").stat().st_size == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImageServer]:
    (tmp_path / "www").mkdir()
    with ImageServer(tmp_path / "www") as running:
        yield running


def kali(server: ImageServer) -> FromImage:
    from tests.unit.test_images_catalog_distros import settings

    return resolve("kali:latest", settings(server))


def published(server: ImageServer, disk: Path, *options: str) -> None:
    archive = archive_of(disk, *options, name=disk.name)
    packed = archive.with_suffix(".tar.xz")
    packed.write_bytes(lzma.compress(archive.read_bytes(), preset=0))
    for version in ("2025.4", "2026.2", "2026.1"):
        kali_tree(server.root / "kali", packed, version)
    list_directories(server.root)


@pytest.mark.parametrize("options", [(), ("--sparse",)], ids=["plain", "sparse"])
def test_the_disk_in_a_published_archive_is_stored(
    server: ImageServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    raw = bootable(tmp_path / "disk.raw", "BOOTAA64.EFI")
    published(server, raw, *options)
    source = kali(server)
    assert (source.reference, source.serial) == ("kali:2026.2", None)
    assert source.system is not None
    assert source.system.default_user == "kali"
    cache = Cache(tmp_path / "cache")
    image = obtain(source, cache=cache, progress=Quiet(), web=quick())
    assert image.digest == source.digest
    assert inspect(image.path).virtual_size == raw.stat().st_size
    back = tmp_path / "back.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.path, back], check=True)
    assert hash_file(back) == hash_file(raw)
    assert leftovers(cache.root) == [image.path.with_suffix(".json").name, image.path.name]
    assert obtain(source, cache=cache, progress=Quiet(), web=quick()).path == image.path
    assert server.count(source.location.removeprefix(server.url)) == 1


def test_a_disk_for_other_cpus_in_an_archive_is_refused(
    server: ImageServer, tmp_path: Path
) -> None:
    published(server, bootable(tmp_path / "disk.raw", "BOOTX64.EFI"))
    cache = Cache(tmp_path / "cache")
    with pytest.raises(ImageError, match="amd64"):
        obtain(kali(server), cache=cache, progress=Quiet(), web=quick())
    assert leftovers(cache.root) == []


def test_an_archive_in_an_archive_is_no_disk(server: ImageServer, tmp_path: Path) -> None:
    inner = archive_of(with_holes(tmp_path / "disk.raw"))
    published(server, inner.rename(tmp_path / "inner"))
    cache = Cache(tmp_path / "cache")
    with pytest.raises(HostileImage, match="tar archive"):
        obtain(kali(server), cache=cache, progress=Quiet(), web=quick())
    assert leftovers(cache.root) == []
