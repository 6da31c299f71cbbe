"""Find the boot loaders on a disk's EFI system partitions, to detect its CPU.

Sources: the UEFI specification ("GUID Partition Table", "Removable Media Boot Behavior": the
firmware starts ``\\EFI\\BOOT\\BOOT<arch>.EFI``), and Microsoft's FAT specification: every
directory entry has a short name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from armvm.images.check.guest_disk import GuestDisk, Unreadable
from armvm.images.check.partitions import partitions

#: The types of an EFI system partition, in GPT and in MBR.
_ESP = ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "0xef")
#: Bytes per sector; sectors per cluster, reserved sectors; FATs; entries of the root directory;
#: all sectors (small disks), sectors per FAT (12, 16), all sectors, sectors per FAT (32).
_BPB = struct.Struct("<HBHBHHxH8xII")
#: The longest directory to read, in clusters.
_MOST_CLUSTERS = 256
_DIRECTORY, _VOLUME = 0x10, 0x08


def boot_loaders(disk: GuestDisk) -> frozenset[str]:
    """Return the names in ``\\EFI\\BOOT`` of all EFI system partitions, in upper case.

    Empty if there is none. Raises Unreadable for a corrupt disk; OSError.
    """
    found: set[str] = set()
    for one in partitions(disk):
        if one.type in _ESP:
            found |= loaders_at(disk, one.start)
    return frozenset(found)


def loaders_at(disk: GuestDisk, start: int) -> frozenset[str]:
    """Return the names in ``\\EFI\\BOOT`` of the FAT file system at *start* bytes, in upper case.

    Raises Unreadable, OSError.
    """
    volume = _volume(disk, start)
    efi = _entries(disk, volume, volume.root).get("EFI")
    boot = _entries(disk, volume, efi).get("BOOT") if efi else None
    return frozenset(_entries(disk, volume, boot)) if boot else frozenset()


@dataclass(frozen=True, kw_only=True)
class _Volume:
    """A FAT file system: offsets on the disk and sizes are in bytes. ``root`` is a cluster number
    (FAT32), or None if the root directory is ``root_size`` bytes at ``root_start``.
    """

    bits: int
    fat: int
    root: int | None
    root_start: int
    root_size: int
    data: int
    cluster: int


def _volume(disk: GuestDisk, start: int) -> _Volume:
    head = disk.read(start, 512)
    sector, per_cluster, reserved, fats, root_entries, small, fat16_size, large, fat32_size = (
        _BPB.unpack_from(head, 11)
    )
    fat_size = fat16_size or fat32_size
    if sector not in (512, 1024, 2048, 4096) or not per_cluster or not reserved or not fats:
        raise Unreadable("not a FAT file system")
    root_start = start + (reserved + fats * fat_size) * sector
    root_size = root_entries * 32
    data = root_start + -(-root_size // sector) * sector
    clusters = ((small or large) * sector - (data - start)) // (per_cluster * sector)
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    return _Volume(
        bits=bits,
        fat=start + reserved * sector,
        root=struct.unpack_from("<I", head, 44)[0] if bits == 32 else None,
        root_start=root_start,
        root_size=root_size,
        data=data,
        cluster=per_cluster * sector,
    )


def _entries(disk: GuestDisk, volume: _Volume, first: int | None) -> dict[str, int]:
    """Return a directory's short names with their first clusters; *first* None is the root."""
    found: dict[str, int] = {}
    for piece in _pieces(disk, volume, first):
        for at in range(0, len(piece), 32):
            entry = piece[at : at + 32]
            if entry[0] == 0:
                return found
            if entry[0] == 0xE5 or entry[11] & _VOLUME:  # deleted; a label or part of a long name
                continue
            stem, suffix = (entry[a:b].decode("latin-1").rstrip() for a, b in ((0, 8), (8, 11)))
            high = struct.unpack_from("<H", entry, 20)[0] if volume.bits == 32 else 0
            number = high << 16 | struct.unpack_from("<H", entry, 26)[0]
            found[f"{stem}.{suffix}" if suffix else stem] = number
    return found


def _pieces(disk: GuestDisk, volume: _Volume, first: int | None) -> Iterator[bytes]:
    """Yield a directory's bytes, one cluster at a time."""
    if first is None:
        yield disk.read(volume.root_start, volume.root_size)
        return
    number, end = first, {12: 0xFF7, 16: 0xFFF7, 32: 0x0FFFFFF7}[volume.bits]
    for _ in range(_MOST_CLUSTERS):
        if not 2 <= number < end:
            return
        yield disk.read(volume.data + (number - 2) * volume.cluster, volume.cluster)
        number = _next(disk, volume, number)


def _next(disk: GuestDisk, volume: _Volume, number: int) -> int:
    if volume.bits == 12:
        pair = int.from_bytes(disk.read(volume.fat + number * 3 // 2, 2), "little")
        return pair >> 4 if number % 2 else pair & 0xFFF
    width = volume.bits // 8
    return int.from_bytes(disk.read(volume.fat + number * width, width), "little") & 0x0FFFFFFF
