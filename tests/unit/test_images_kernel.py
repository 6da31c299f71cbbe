"""Finding the kernel in an image: real ext4, real qcow2, and images that mean no good."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from armvm.base.errors import ImageError
from armvm.images.cache.store import Cache
from armvm.images.kernel import boot_files, first_entry, partitions, remove_boot_files
from armvm.images.model import FromImage, Image
from tests.images_tools import (
    GRUB_CFG,
    KERNEL,
    PARTITION_START,
    bootable_image,
    debian_tree,
    leftovers,
    qcow2_image,
    raw_image,
)

pytestmark = pytest.mark.unit

DIGEST = "sha256:" + "5" * 64
BOOT = "boot-" + "5" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "odd 'name'?" / "cache")


def image_of(path: Path) -> Image:
    source = FromImage(reference=path.name, location=str(path), digest=DIGEST)
    return Image(
        source=source, path=path, digest=DIGEST, size=path.stat().st_size, virtual_size=40 << 20
    )


def test_the_kernel_that_the_image_boots_by_itself(tmp_path: Path, cache: Cache) -> None:
    image = image_of(bootable_image(tmp_path / "image.qcow2", debian_tree()))
    found = boot_files(image, cache=cache)
    assert found.kernel.read_bytes() == KERNEL
    assert found.initrd.read_bytes() == b"an initrd"
    assert found.name == "vmlinuz-6.1.0-1-arm64", "links are followed: the version is told"
    assert found.command_line == "root=LABEL=here ro console=tty0 console=ttyAMA0"
    assert leftovers(cache.root) == [f"{BOOT}/{name}" for name in ("boot.json", "initrd", "kernel")]
    assert cache.entries() == [], "it is no image of the cache's"


def test_it_is_read_once(tmp_path: Path, cache: Cache) -> None:
    image = image_of(bootable_image(tmp_path / "image.qcow2", debian_tree()))
    found = boot_files(image, cache=cache)
    held = image.path.rename(tmp_path / "elsewhere")
    assert boot_files(image, cache=cache) == found
    held.rename(image.path)
    found.kernel.write_bytes(b"cut")  # not whole any more: it is read again
    assert boot_files(image, cache=cache).kernel.read_bytes() == KERNEL
    remove_boot_files(DIGEST, cache=cache)
    assert leftovers(cache.root) == []


def test_boot_on_a_file_system_of_its_own(tmp_path: Path, cache: Cache) -> None:
    """As in Ubuntu's images since 23.10: the paths begin below /boot."""
    tree: dict[str, bytes | str] = {
        "grub/grub.cfg": b"menuentry 'Ubuntu' {\n linux /vmlinuz-6.8.0-1 root=UUID=1 ro\n"
        b" initrd /initrd.img-6.8.0-1\n}\n",
        "vmlinuz-6.8.0-1": b"\x1f\x8b" + bytes(100),
        "initrd.img-6.8.0-1": b"i",
    }
    found = boot_files(image_of(bootable_image(tmp_path / "i.qcow2", tree)), cache=cache)
    assert (found.name, found.command_line) == ("vmlinuz-6.8.0-1", "root=UUID=1 ro console=ttyAMA0")


@pytest.mark.parametrize(
    "change",
    [
        {"boot/grub/grub.cfg": b"configfile elsewhere\n"},
        {"boot/vmlinuz-6.1.0-1-arm64": b"MZ" + bytes(2000)},
        {"boot/vmlinuz-6.1.0-1-arm64": b""},
        {"vmlinuz": "vmlinuz"},
        {"vmlinuz": "boot"},
        {"vmlinuz": "gone"},
        {"vmlinuz": "boot/a b"},
        {"initrd.img": "boot"},
    ],
    ids=lambda change: " ".join(f"{key}={str(value)[:20]}" for key, value in change.items()),
)
def test_an_image_without_a_kernel_for_us(
    tmp_path: Path, cache: Cache, change: dict[str, bytes | str]
) -> None:
    image = image_of(bootable_image(tmp_path / "image.qcow2", {**debian_tree(), **change}))
    with pytest.raises(ImageError):
        boot_files(image, cache=cache)
    assert f"{BOOT}/boot.json" not in leftovers(cache.root)
    assert [name for name in leftovers(cache.root) if name.endswith(".partial")] == []


def test_an_image_without_a_file_system(tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(ImageError, match="kernel not found"):
        boot_files(image_of(qcow2_image(tmp_path / "noise.qcow2")), cache=cache)


def test_a_broken_file_system(tmp_path: Path, cache: Cache) -> None:
    from armvm.base import process

    path = bootable_image(tmp_path / "image.qcow2", debian_tree())
    raw = tmp_path / "raw"
    process.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw])
    assert list(partitions(raw)) == [PARTITION_START]
    with raw.open("r+b") as file:
        file.seek(PARTITION_START + 4096)
        file.write(b"\xff" * (1 << 20))
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])
    with pytest.raises(ImageError):
        boot_files(image_of(path), cache=cache)


def test_a_disk_without_a_gpt_has_no_partitions(tmp_path: Path) -> None:
    assert list(partitions(raw_image(tmp_path / "mbr.raw"))) == []
    (tmp_path / "empty").write_bytes(b"")
    assert list(partitions(tmp_path / "empty")) == []
    hostile = bytearray(2 << 20)
    hostile[512:520] = b"EFI PART"
    hostile[512 + 72 : 512 + 88] = b"\xff" * 16
    (tmp_path / "hostile").write_bytes(hostile)
    assert list(partitions(tmp_path / "hostile")) == []
    # A table at the last sector that there can be, with entries of a valid size.
    hostile[512 + 72 : 512 + 88] = struct.pack("<QII", (1 << 63) - 1, 128, 128)
    (tmp_path / "hostile").write_bytes(hostile)
    assert list(partitions(tmp_path / "hostile")) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (GRUB_CFG, ("/vmlinuz", "/initrd.img", "root=LABEL=here ro console=tty0 console=ttyAMA0")),
        ("linux /k root=a console=ttyAMA0,115200\ninitrd /i", "console=ttyAMA0,115200"),
        ("linux /k root=$root\ninitrd /i", None),
        ("linux /k ro\ninitrd /i", None),
        ("linux /k root=a", None),
        ("linux /k root=a\ninitrd /ucode /i", None),
        ("linux /k;x root=a\ninitrd /i", None),
        ("linux k root=a\ninitrd /i", None),
        ("linux /k root=a <x>\ninitrd /i", None),
        ("linux /k root=a\nmenuentry x {\ninitrd /i", None),
        ("linux\ninitrd\n\n", None),
        ("linux /k root=$r\ninitrd /i\nlinux /l root=b\ninitrd /j", "root=b"),
    ],
)
def test_what_is_taken_of_a_grub_cfg(text: str, wanted: object) -> None:
    found = first_entry(text)
    if isinstance(wanted, str):
        assert found is not None and wanted in found[2]
        assert found[2].count("console=ttyAMA0") == 1
    else:
        assert found == wanted
