"""Detect images for other CPUs by the boot loaders on their EFI system partition."""

from __future__ import annotations

from pathlib import Path

from armvm.base.errors import ImageError
from armvm.images.check.efi import boot_loaders
from armvm.images.check.formats import DiskFormat, arm64_hint
from armvm.images.check.guest_disk import GuestDisk, Unreadable, opened
from armvm.images.check.partitions import partitions

#: The boot loader for arm64, and those for other CPUs with their Debian names.
LOADER = "BOOTAA64.EFI"
LOADERS = {"BOOTX64.EFI": "amd64", "BOOTIA32.EFI": "i386", "BOOTARM.EFI": "armhf"}


def refuse_foreign_boot(path: Path, format: DiskFormat, name: str) -> None:
    """Raise ImageError if a disk has boot loaders for other CPUs, but not for arm64.

    A disk without a known loader, or that cannot be read here, passes: this helps users who
    chose the wrong file; it does not protect. *name* is for messages. Raises HostileImage
    for a qcow2 that is not standalone; OSError.
    """
    try:
        with opened(path) as file:
            loaders = boot_loaders(GuestDisk(file, format))
    except Unreadable:
        return
    foreign = sorted(loaders & LOADERS.keys(), reverse=True)
    if foreign and LOADER not in loaders:
        raise ImageError(
            f"{name} is an image for {LOADERS[foreign[0]]}: it boots with {foreign[0]}; "
            "armvm needs arm64 (aarch64)",
            hint=arm64_hint(name),
        )


def without_boot_loader(path: Path, format: DiskFormat) -> bool:
    """Return whether a disk has partitions, but no boot loader for UEFI, as boards' images.

    False if it cannot be read here. Raises HostileImage for a qcow2 that is not standalone;
    OSError.
    """
    try:
        with opened(path) as file:
            disk = GuestDisk(file, format)
            return bool(partitions(disk)) and not boot_loaders(disk)
    except Unreadable:
        return False
