"""Images for other CPUs, told by the boot loaders on their EFI system partition."""

from __future__ import annotations

from pathlib import Path

from armvm.base.errors import ImageError
from armvm.images.check.efi import boot_loaders
from armvm.images.check.formats import DiskFormat, arm64_hint
from armvm.images.check.guest_disk import GuestDisk, Unreadable, opened

#: The loader that firmware starts on arm64, and those of others with their Debian names.
_LOADER = "BOOTAA64.EFI"
_LOADERS = {"BOOTX64.EFI": "amd64", "BOOTIA32.EFI": "i386", "BOOTARM.EFI": "armhf"}


def refuse_foreign_boot(path: Path, format: DiskFormat, name: str) -> None:
    """Raise ImageError when a disk has boot loaders for other CPUs, and none for arm64.

    A disk on which no loader is found, or that cannot be read here, passes: this is help for
    those who took the wrong file, not protection. *name* is for messages. Raises HostileImage
    for a qcow2 that does not stand alone; OSError.
    """
    try:
        with opened(path) as file:
            loaders = boot_loaders(GuestDisk(file, format))
    except Unreadable:
        return
    foreign = sorted(loaders & _LOADERS.keys(), reverse=True)
    if foreign and _LOADER not in loaders:
        raise ImageError(
            f"{name} is an image for {_LOADERS[foreign[0]]}: it boots by {foreign[0]}; "
            "armvm's machines need arm64 (aarch64)",
            hint=arm64_hint(name),
        )
