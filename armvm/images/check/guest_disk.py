"""Read parts of a disk as the guest sees it, from a raw or qcow2 file.

This inspects an untrusted image without other programs, and before one opens it. All numbers in
the file are untrusted: anything that cannot be read safely raises Unreadable.
Layout: QEMU's docs/interop/qcow2.txt, "Guest data cluster mapping".
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from armvm.images.check.formats import DiskFormat
from armvm.images.check.qcow2 import Qcow2, inspect_file

#: Maximum bytes to read from one disk: partition tables and directories are small.
BUDGET = 64 << 20

_OFFSET = (1 << 56) - (1 << 9)  # bits 9 to 55
_COMPRESSED = 1 << 62
_ZERO = 1


class Unreadable(Exception):
    """The requested data is not on the disk, or has an unsupported form."""


class GuestDisk:
    """A disk in an open *file*; read() returns its bytes. ``size`` is in bytes."""

    def __init__(self, file: BinaryIO, format: DiskFormat, *, budget: int = BUDGET) -> None:
        """Detect the size. Raises HostileImage for a qcow2 that is not standalone."""
        self._file, self._left = file, budget
        self._length = os.fstat(file.fileno()).st_size
        self._qcow2: Qcow2 | None = None
        self.size = self._length
        if format is DiskFormat.QCOW2:
            self._qcow2 = inspect_file(file, size=self._length, name="the image")
            self.size = self._qcow2.virtual_size
        self._cached: tuple[int, bytes] = (-1, b"")

    def read(self, offset: int, length: int) -> bytes:
        """Return *length* bytes at *offset*. Raises Unreadable; OSError."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Unreadable("beyond the end of the disk")
        self._spend(length)
        if self._qcow2 is None:
            return self._bytes(offset, length)
        cluster = self._qcow2.cluster_size
        found = bytearray()
        while len(found) < length:
            number, start = divmod(offset + len(found), cluster)
            if number != self._cached[0]:
                self._cached = (number, self._cluster(self._qcow2, number))
            found += self._cached[1][start : start + length - len(found)]
        return bytes(found)

    def _cluster(self, image: Qcow2, number: int) -> bytes:
        size = image.cluster_size
        self._spend(size)
        if image.extended:
            raise Unreadable("unsupported subclusters")
        first, second = divmod(number, size // 8)
        if first >= image.l1_entries:
            raise Unreadable("beyond the L1 table")
        table = self._number(image.l1_offset + first * 8) & _OFFSET
        entry = self._number(table + second * 8) if table else 0
        if entry & _COMPRESSED:
            return self._inflated(image, entry)
        if not entry & _OFFSET or entry & _ZERO:
            return bytes(size)
        return self._bytes(entry & _OFFSET, size, short=True)

    def _inflated(self, image: Qcow2, entry: int) -> bytes:
        if image.zstd:
            raise Unreadable("unsupported compression (zstd)")
        size = image.cluster_size
        # The offset's width depends on the cluster size: 62 - (bits - 8).
        split = 62 - (size.bit_length() - 1 - 8)
        offset = entry & ((1 << split) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> split
        packed = self._bytes(offset, (sectors + 1) * 512 - offset % 512, short=True)
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size)
        except zlib.error as error:
            raise Unreadable("invalid compressed data") from error
        if len(data) != size:
            raise Unreadable("a compressed cluster is too short")
        return data

    def _number(self, offset: int) -> int:
        return int(struct.unpack(">Q", self._bytes(offset, 8))[0])

    def _bytes(self, offset: int, length: int, *, short: bool = False) -> bytes:
        """Return bytes of the file; with *short*, zeros after its end."""
        if not 0 <= offset < self._length:
            raise Unreadable("beyond the end of the file")
        data = os.pread(self._file.fileno(), length, offset)
        if len(data) < length and not short:
            raise Unreadable("beyond the end of the file")
        return data.ljust(length, b"\0")

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Unreadable("read limit exceeded")


def opened(path: Path) -> BinaryIO:
    """Open an image file for GuestDisk: read-only, and without following a link."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=0)
