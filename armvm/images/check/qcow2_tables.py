"""Check that a qcow2 image's clusters are all in the file, and each is used once.

The tables of a truncated or hostile file can point beyond its end or into its own header, where
QEMU would read zeros or tables. This finds what ``qemu-img check`` calls corruptions, except for
wrong reference counts, which matter only for writing. It reads only the tables.
Layout: QEMU's docs/interop/qcow2.txt, "Guest data cluster mapping".
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

from armvm.base.errors import HostileImage
from armvm.images.check.qcow2 import Qcow2, inspect_file

_OFFSET = (1 << 56) - (1 << 9)  # bits 9 to 55
_COMPRESSED = 1 << 62

#: Bytes of a table to read at once.
_PIECE = 1 << 20


def check(path: Path, *, name: str | None = None) -> Qcow2:
    """Check all of a qcow2 image except its data; return its sizes.

    *name* is used in messages (default: the path). The work grows with the tables in the
    file. Raises HostileImage; OSError if the file cannot be read.
    """
    shown = name or str(path)
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        image = inspect_file(file, size=size, name=shown)
        _Clusters(file.fileno(), image, size, shown).check()
    return image


class _Clusters:
    """The file's clusters; each is marked when a use of it is found."""

    def __init__(self, descriptor: int, image: Qcow2, size: int, name: str) -> None:
        self._descriptor, self._image, self._size, self._name = descriptor, image, size, name
        self._count = -(-size // image.cluster_size)
        self._used = bytearray(-(-self._count // 8))

    def check(self) -> None:
        image = self._image
        self._take("header", 0, image.cluster_size)
        self._take("L1 table", image.l1_offset, image.l1_entries * 8)
        self._take("refcount table", image.refcount_offset, image.refcount_bytes)
        for entry in self._entries(image.refcount_offset, image.refcount_bytes):
            self._cluster("a refcount block", entry)
        # All tables before the first data cluster, so that a cluster in a table is reported as
        # the error. Each table is read once, so that the file's size bounds the work.
        for table in self._tables():
            self._cluster("an L2 table", table, whole=True)
        for table in self._tables():
            self._check_l2(table)

    def _tables(self) -> Iterator[int]:
        for entry in self._entries(self._image.l1_offset, self._image.l1_entries * 8):
            if entry & _OFFSET:
                yield entry & _OFFSET

    def _check_l2(self, table: int) -> None:
        cluster = self._image.cluster_size
        split = 62 - (cluster.bit_length() - 1 - 8)
        for start in range(0, cluster, _PIECE):
            entries = self._read(table + start, min(_PIECE, cluster - start))
            # With extended entries, every second number is a bitmap of subclusters.
            for entry in entries[:: 2 if self._image.extended else 1]:
                if entry & _COMPRESSED:
                    offset = entry & ((1 << split) - 1)
                    sectors = (entry & (_COMPRESSED - 1)) >> split
                    # The last sector contains at least one byte of it.
                    beyond = (offset // 512 + sectors) * 512 >= self._size
                    if offset < cluster or beyond:
                        raise self._refuse("a compressed cluster", offset, beyond=beyond)
                elif offset := entry & _OFFSET:
                    self._cluster("a cluster", offset)

    def _entries(self, offset: int, length: int) -> Iterator[int]:
        """Yield a table's non-zero entries."""
        for start in range(0, length, _PIECE):
            yield from filter(None, self._read(offset + start, min(_PIECE, length - start)))

    def _read(self, offset: int, length: int) -> array[int]:
        data = os.pread(self._descriptor, length, offset)
        if len(data) < length:
            raise self._refuse("a table", offset, beyond=True)
        entries = array("Q", data)
        if sys.byteorder == "little":
            entries.byteswap()
        return entries

    def _cluster(self, what: str, offset: int, *, whole: bool = False) -> None:
        """Record that *what* fills the cluster at *offset*; the file's last one may be short."""
        cluster = self._image.cluster_size
        end = offset + (cluster if whole else 1)
        if offset % cluster or end > self._size:
            raise self._refuse(what, offset, beyond=end > self._size)
        self._take(what, offset, cluster)

    def _take(self, what: str, offset: int, length: int) -> None:
        cluster = self._image.cluster_size
        for number in range(offset // cluster, -(-(offset + length) // cluster)):
            if number >= self._count:
                break
            place, bit = number >> 3, 1 << (number & 7)
            if self._used[place] & bit:
                raise HostileImage(
                    f"{self._name} cannot be used: {what} at {offset:#x} overlaps other parts "
                    "of the file",
                    hint=_HINT,
                )
            self._used[place] |= bit

    def _refuse(self, what: str, offset: int, *, beyond: bool) -> HostileImage:
        return HostileImage(
            f"{self._name} cannot be used: {what} at {offset:#x} "
            + (f"lies beyond the end of the file ({self._size} bytes)" if beyond else "is invalid"),
            hint=_HINT,
        )


_HINT = "download or copy it again: it may be truncated (details: qemu-img check)"
