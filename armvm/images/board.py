"""Find the root file system on the disk of a board's image."""

from __future__ import annotations

from dataclasses import dataclass

from armvm.base.errors import HostileImage, ImageError
from armvm.base.progress import size_text
from armvm.images.check.guest_disk import GuestDisk, Unreadable
from armvm.images.check.partitions import Partition, partitions
from armvm.images.ext4 import Ext4, is_ext

#: Offset and first bytes of other file systems, for messages.
_KINDS = (
    (0, b"hsqs", "squashfs"),
    (0, b"XFSB", "xfs"),
    (0, b"LUKS\xba\xbe", "encrypted (LUKS)"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (65600, b"_BHRfS_M", "btrfs"),
    (54, b"FAT", "FAT"),
    (82, b"FAT32", "FAT"),
)


@dataclass(frozen=True, kw_only=True)
class BoardRoot:
    """A board's root file system: its *partition*, *system*, and the contents of os-release."""

    partition: Partition
    system: Ext4
    os_release: bytes


def find_root(disk: GuestDisk, name: str, number: int | None = None) -> BoardRoot:
    """Return the root file system of a board's disk; *number* chooses its partition.

    *name* is for messages. Raises HostileImage for a corrupt partition table, ImageError if there
    is no root file system, more than one, or one that cannot be read; OSError.
    """
    try:
        table = partitions(disk)
    except Unreadable as error:
        raise HostileImage(
            f"{name} has an invalid partition table: {error}", hint="download it again"
        ) from error
    if number is not None and number not in [one.number for one in table]:
        known = ", ".join(str(one.number) for one in table)
        raise ImageError(
            f"partition {number} not found in {name}", hint=f"it has: {known}" if known else None
        )
    found, seen = [], []
    for one in table:
        if number not in (None, one.number):
            continue
        root, kind = _look(disk, one, name)
        seen.append(f"partition {one.number}: {kind}, {size_text(one.size)}")
        found += [root] if root else []
    if len(found) == 1:
        return found[0]
    if found:
        numbers = [str(one.partition.number) for one in found]
        raise ImageError(
            f"{name} has several root file systems: partitions {', '.join(numbers)}",
            hint=f"choose one: --partition {numbers[0]}",
        )
    raise ImageError(
        f"root file system not found in {name}",
        detail="\n".join(seen) or "partitions not found",
        hint="armvm reads ext4. If the root has another file system, mount it and use: "
        "armvm rootfs to-image DIR --install-missing --as NAME",
    )


def _look(disk: GuestDisk, one: Partition, name: str) -> tuple[BoardRoot | None, str]:
    """Return a partition's root file system, if it has one, and the kind of its contents."""
    try:
        if not is_ext(disk, one.start, one.size):
            return None, _kind(disk, one)
        system = Ext4(disk, one.start, one.size)
        for path in ("etc/os-release", "usr/lib/os-release"):
            file = system.find(path)
            if file is not None and file.is_file:
                data = system.read(file, 65536)
                return BoardRoot(partition=one, system=system, os_release=data), "ext4 with a root"
        return None, "ext4 without a root file system"
    except Unreadable as error:
        raise unreadable(name, one, error) from error


def unreadable(name: str, one: Partition, error: Unreadable) -> ImageError:
    """Return the error for a partition's ext4 file system that cannot be read."""
    return ImageError(
        f"partition {one.number} of {name} cannot be read: {error}",
        hint="download it again; for an image of a card, repair the file system first: "
        "losetup -P -f --show FILE, then fsck -f of the partition",
    )


def _kind(disk: GuestDisk, one: Partition) -> str:
    for offset, magic, kind in _KINDS:
        if offset + len(magic) <= one.size and disk.read(one.start + offset, len(magic)) == magic:
            return kind
    return "unknown contents"
