"""Write a disk again with other files on its root partition.

Boot loader, partition table and the other partitions stay as they are, and the new file system has
the UUID and the label of the old one: what refers to them still finds it. If the files need more
room, the partition grows, and the disk with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from armvm.base import process
from armvm.base.errors import ConfigError
from armvm.images import disk
from armvm.images.board import BoardRoot
from armvm.images.check.guest_disk import GuestDisk
from armvm.images.check.partitions import partitions

_PIECE = disk.MIB


def rewrite(
    old: GuestDisk,
    found: BoardRoot,
    root: Path,
    output: Path,
    *,
    used: int,
    inside: Sequence[str],
    on_phase: Callable[[str], None],
) -> None:
    """Write the disk *old* as the qcow2 file *output*, with the files of *root* on its root.

    *found* is the root partition, *used* the size of the files in bytes; *inside* is as for
    disk.make(). A raw image beside *output* is temporary. Raises ConfigError if the files do not
    fit and the partition cannot grow, CommandFailed, Unreadable, OSError. The caller removes
    leftovers of a failure.
    """
    place = found.partition
    more = max(disk.root_size(disk.size_for(used)) - place.size, 0)
    raw = output.with_name(f"{output.name}.raw")
    on_phase("writing the disk")
    if more and any(one.start > place.start for one in partitions(old)):
        raise ConfigError(
            f"the files do not fit on partition {place.number}, which cannot grow: another "
            "partition follows it"
        )
    with raw.open("wb") as file:
        file.truncate(old.size + more)
        _copy(old, file, 0, place.start)
        _copy(old, file, place.start + place.size, old.size)
    if more:
        # The second copy of a GPT is at the disk's end. Without a GPT, this does nothing.
        process.run(["sfdisk", "--quiet", "--relocate", "gpt-bak-std", raw])
        table = f",{(place.size + more) // disk.SECTOR}\n".encode()
        process.run(["sfdisk", "--quiet", "-N", str(place.number), raw], input=table)
    # In a user namespace mke2fs runs as another user; the directory protects the file.
    raw.chmod(0o666)
    disk.write_root(
        root,
        raw,
        start=place.start,
        size=place.size + more,
        label=found.system.label,
        uuid=found.system.uuid,
        inside=inside,
    )
    on_phase("converting to qcow2")
    disk.convert(raw, output)


def _copy(old: GuestDisk, file: BinaryIO, start: int, end: int) -> None:
    """Copy the bytes from *start* to *end*; zeros become holes."""
    for at in range(start, end, _PIECE):
        data = old.read(at, min(_PIECE, end - at))
        if any(data):
            file.seek(at)
            file.write(data)
