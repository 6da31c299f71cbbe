"""Read the partition table of a disk: GPT, or MBR with logical partitions.

The table is untrusted. Partitions that overlap, that end beyond the disk, and logical partitions
that refer back to an earlier one are an error, because no installer writes them.
Sources: the UEFI specification ("GUID Partition Table (GPT) Disk Layout", "Legacy Master Boot
Record").
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from armvm.images.check.guest_disk import GuestDisk, Unreadable

_GPT = struct.Struct("<8s64xQII")  # signature, first LBA of the entries, their number and size
_MBR_ENTRY = struct.Struct("<4xB3xII")  # type, first sector, number of sectors
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_MOST_ENTRIES = 256
#: Maximum number of logical partitions; Linux numbers 60 of an MBR's.
_MOST_LOGICAL = 60


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition: *number* as Linux counts, *start* and *size* in bytes.

    *type* is an MBR type (``0x83``), or a GPT type in upper case
    (``C12A7328-F81F-11D2-BA4B-00A0C93EC93B``).
    """

    number: int
    start: int
    size: int
    type: str


def partitions(disk: GuestDisk) -> list[Partition]:
    """Return the partitions of a disk, in the order of their numbers.

    Empty if it has no partition table. Raises Unreadable for a corrupt table; OSError.
    """
    found = sorted(_gpt(disk) or _mbr(disk), key=lambda one: one.number)
    _check(found, disk.size)
    return found


def _check(found: list[Partition], size: int) -> None:
    """Raise Unreadable for partitions that cannot all be on a disk of *size* bytes."""
    end, before = 0, 0
    for one in sorted(found, key=lambda one: one.start):
        if one.start < end:
            raise Unreadable(f"partitions {before} and {one.number} overlap")
        end, before = one.start + one.size, one.number
        if end > size:
            raise Unreadable(f"partition {one.number} ends beyond the disk")


def _gpt(disk: GuestDisk) -> list[Partition]:
    for sector in (512, 4096):
        if disk.size < 2 * sector:
            continue
        signature, table, count, length = _GPT.unpack(disk.read(sector, _GPT.size))
        if signature == b"EFI PART":
            if not 128 <= length <= 4096:
                raise Unreadable("unsupported partition table")
            return list(_gpt_entries(disk, sector, table * sector, count, length))
    return []


def _gpt_entries(
    disk: GuestDisk, sector: int, table: int, count: int, length: int
) -> Iterator[Partition]:
    for number in range(min(count, _MOST_ENTRIES)):
        entry = disk.read(table + number * length, 48)
        if not any(entry[:16]):
            continue
        first, last = struct.unpack_from("<QQ", entry, 32)
        if last < first:
            raise Unreadable(f"partition {number + 1} ends before it starts")
        yield Partition(
            number=number + 1,
            start=first * sector,
            size=(last - first + 1) * sector,
            type=str(uuid.UUID(bytes_le=entry[:16])).upper(),
        )


def _mbr(disk: GuestDisk) -> list[Partition]:
    found: list[Partition] = []
    for number, (kind, first, count) in enumerate(_entries(disk, 0), start=1):
        if kind == _PROTECTIVE:
            raise Unreadable("the GPT is missing or corrupt")
        if kind in _EXTENDED and count:
            found += _logical(disk, first)
        elif kind and count:
            found.append(_partition(number, first, count, kind))
    return found


def _logical(disk: GuestDisk, base: int) -> Iterator[Partition]:
    """Yield the logical partitions of the extended partition that starts at sector *base*."""
    seen: set[int] = set()
    here, number = base, 5
    while here not in seen:
        if len(seen) >= _MOST_LOGICAL:
            raise Unreadable("too many logical partitions")
        seen.add(here)
        following = None
        for kind, first, count in _entries(disk, here)[:2]:
            if kind in _EXTENDED and count:
                following = base + first  # relative to the extended partition
            elif kind and count:
                yield _partition(number, here + first, count, kind)  # relative to this table
                number += 1
        if following is None:
            return
        here = following
    raise Unreadable("the logical partitions form a loop")


def _partition(number: int, first: int, count: int, kind: int) -> Partition:
    return Partition(number=number, start=first * 512, size=count * 512, type=f"0x{kind:02x}")


def _entries(disk: GuestDisk, sector: int) -> list[tuple[int, int, int]]:
    """Return the four entries of the table in a sector: type, first sector, number of sectors.

    Empty if the sector has no table.
    """
    if disk.size < 512:
        return []
    head = disk.read(sector * 512, 512)
    if head[510:] != b"\x55\xaa":
        return []
    return [_MBR_ENTRY.unpack_from(head, at) for at in range(446, 510, 16)]
