"""Check that an ISO image is a boot medium for ARM64 machines, with few reads.

The firmware starts ``\\EFI\\BOOT\\BOOTAA64.EFI`` from the FAT file system that the El Torito boot
catalog names for EFI. Sources: ECMA-119 (ISO 9660), "El Torito" Bootable CD-ROM Format 1.0, and
the UEFI specification, "El Torito Boot Catalog" (platform 0xEF).
"""

from __future__ import annotations

from pathlib import Path

from armvm.base.errors import ImageError
from armvm.images.check.cpu import LOADER, LOADERS
from armvm.images.check.efi import loaders_at
from armvm.images.check.formats import DiskFormat
from armvm.images.check.guest_disk import GuestDisk, Unreadable, opened

_SECTOR = 2048
#: The volume descriptors begin at this sector; boot record is their type 0, the end type 255.
_FIRST, _MOST_DESCRIPTORS = 16, 16
_BOOT_RECORD = b"\0CD001\1EL TORITO SPECIFICATION"
_EFI = 0xEF
#: Entries of a boot catalog: 32 bytes each; one sector of them is enough.
_ENTRY, _BOOTABLE, _HEADERS = 32, 0x88, (0x90, 0x91)
_HINT = "use the distribution's installer for arm64 (aarch64): netinst, DVD or mini.iso"


def check_boot_medium(path: Path) -> None:
    """Raise ImageError if a file is not an ISO image that boots ARM64 machines; OSError."""
    with opened(path) as file:
        disk = GuestDisk(file, DiskFormat.RAW)
        try:
            if disk.read(_FIRST * _SECTOR + 1, 5) != b"CD001":
                raise Unreadable("no ISO 9660 descriptor")
        except Unreadable as error:
            raise ImageError(f"{path} is not an ISO image", hint=_HINT) from error
        try:
            found = _loaders(disk)
        except Unreadable as error:
            raise ImageError(
                f"{path} is not an arm64 boot medium: its boot catalog is invalid ({error})",
                hint=_HINT,
            ) from error
    if LOADER in found:
        return
    other = sorted(found & LOADERS.keys(), reverse=True)
    if other:
        why = f"it boots {LOADERS[other[0]]} machines, with {other[0]}"
    else:
        why = f"EFI boot entry with {LOADER} not found"
    raise ImageError(f"{path} is not an arm64 boot medium: {why}", hint=_HINT)


def _loaders(disk: GuestDisk) -> frozenset[str]:
    """Return the EFI boot loaders that an ISO's boot catalog leads to."""
    found: frozenset[str] = frozenset()
    for image in _efi_images(disk):
        found |= loaders_at(disk, image)
    return found


def _efi_images(disk: GuestDisk) -> list[int]:
    """Return the offsets of the boot images for EFI in bytes; empty without a boot catalog."""
    catalog = _catalog(disk)
    if catalog is None:
        return []
    images, platform = [], catalog[1]
    for at in range(_ENTRY, len(catalog), _ENTRY):
        entry = catalog[at : at + _ENTRY]
        if entry[0] in _HEADERS:
            platform = entry[1]
        elif entry[0] == _BOOTABLE and platform == _EFI:
            images.append(int.from_bytes(entry[8:12], "little") * _SECTOR)
    return images


def _catalog(disk: GuestDisk) -> bytes | None:
    for number in range(_FIRST, _FIRST + _MOST_DESCRIPTORS):
        head = disk.read(number * _SECTOR, 75)
        if head.startswith(_BOOT_RECORD):
            return disk.read(int.from_bytes(head[71:75], "little") * _SECTOR, _SECTOR)
        if head[1:6] != b"CD001" or head[0] == 255:
            break
    return None
