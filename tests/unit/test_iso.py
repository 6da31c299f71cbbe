"""Boot media: ISO images that ARM64 machines can boot, and all others."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pycdlib
import pytest

from armvm.base import process
from armvm.base.errors import ConfigError, ImageError
from armvm.images.check.iso import check_boot_medium
from armvm.provision.machine.seedless import medium

pytestmark = pytest.mark.unit


def fat(path: Path, *loaders: str) -> bytes:
    """Return a FAT file system with *loaders* in \\EFI\\BOOT."""
    with path.open("wb") as file:
        file.truncate(1440 << 10)
    process.run(["mformat", "-i", path, "-f", "1440", "::"])
    for directory in ("::/EFI", "::/EFI/BOOT"):
        process.run(["mmd", "-i", path, directory])
    content = path.with_suffix(".efi")
    content.write_bytes(random.Random(0).randbytes(3000))
    for name in loaders:
        process.run(["mcopy", "-i", path, content, f"::/EFI/BOOT/{name}"])
    return path.read_bytes()


def make_iso(path: Path, *loaders: str, efi: bool = True, bios: bool = False) -> Path:
    """Write an ISO image whose boot catalog leads to *loaders*; without any, it has no catalog."""
    iso = pycdlib.PyCdlib()
    iso.new(joliet=3)
    if loaders:
        data = fat(path.with_suffix(".fat"), *loaders)
        iso.add_fp(io.BytesIO(data), len(data), "/EFI.IMG;1")
        if bios:  # as on most media: the EFI entry is in a section of its own
            iso.add_fp(io.BytesIO(bytes(2048)), 2048, "/BIOS.IMG;1")
            iso.add_eltorito("/BIOS.IMG;1", bootcatfile="/BOOT.CAT;1")
        iso.add_eltorito(
            "/EFI.IMG;1", bootcatfile="/BOOT.CAT;1", efi=efi, platform_id=0xEF if efi else 0
        )
    iso.write(str(path))
    iso.close()
    return path


def test_a_medium_for_arm64_passes(tmp_path: Path) -> None:
    check_boot_medium(make_iso(tmp_path / "a.iso", "BOOTAA64.EFI"))
    both = make_iso(tmp_path / "b.iso", "BOOTX64.EFI", "BOOTAA64.EFI", bios=True)
    source = medium(both)
    assert source.reference == f"cdrom:{both}"
    assert source.size == both.stat().st_size


@pytest.mark.parametrize(
    ("loaders", "efi", "why"),
    [
        (("BOOTX64.EFI", "BOOTIA32.EFI"), True, "it boots amd64 machines, with BOOTX64.EFI"),
        (("BOOTARM.EFI",), True, "it boots armhf machines"),
        (("other.efi",), True, "EFI boot entry with BOOTAA64.EFI not found"),
        (("BOOTAA64.EFI",), False, "EFI boot entry with BOOTAA64.EFI not found"),
        ((), True, "EFI boot entry with BOOTAA64.EFI not found"),
    ],
)
def test_other_media_are_refused_with_the_reason(
    tmp_path: Path, loaders: tuple[str, ...], efi: bool, why: str
) -> None:
    path = make_iso(tmp_path / "x.iso", *loaders, efi=efi)
    with pytest.raises(ImageError, match=f"is not an arm64 boot medium: {why}"):
        medium(path)


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"QFI\xfb" + bytes(70_000)])
def test_other_files_are_no_iso(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.iso"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="is not an ISO image"):
        medium(path)


@pytest.mark.parametrize("name", ["a\x01.iso", "a\uffff.iso", "a\n.iso"])
def test_a_path_that_xml_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    make_iso(tmp_path / "a.iso", "BOOTAA64.EFI").rename(path)
    with pytest.raises(ConfigError, match="unprintable characters"):
        medium(path)


def test_hostile_media_end_in_an_error_or_pass(tmp_path: Path) -> None:
    """Bytes of the descriptors, the catalog and the file system are changed at random."""
    good = make_iso(tmp_path / "a.iso", "BOOTAA64.EFI").read_bytes()
    dice = random.Random(19)
    path = tmp_path / "mutant.iso"
    for _ in range(300):
        data = bytearray(good[: dice.choice([len(good), dice.randrange(len(good))])])
        for _ in range(dice.randrange(1, 40)):
            at = dice.choice([dice.randrange(32768, 65536), dice.randrange(len(good))])
            if at < len(data):
                data[at] = dice.choice([0, 0xFF, dice.randrange(256)])
        path.write_bytes(data)
        try:
            check_boot_medium(path)
        except ImageError:
            continue
