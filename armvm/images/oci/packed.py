"""Pack a layer with zstd while its digest is computed, and unpack one with all of it checked.

A layer is unpacked while it is read. Its output ends at the size that the artifact declares, and
its bytes count as verified only at the end: the caller uses nothing before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from armvm.base.errors import HostileImage, MissingCapability
from armvm.images.oci.document import Descriptor, mismatch

#: zstd's own default: 3.8 times smaller memory, at the speed of a disk.
LEVEL = 3
#: Threads that compress. The output does not depend on their number.
THREADS = min(4, os.cpu_count() or 1)
#: Maximum window of a layer, as for images (see fetch/decompress.py).
WINDOW = 32 << 20
#: Bytes to unpack at once. Pieces of zeros this long can become holes.
PIECE = 1 << 20
_READ = 1 << 17
_ZEROS = bytes(PIECE)


class Packer:
    """Packs what it is fed into *target*."""

    def __init__(self, target: BinaryIO) -> None:
        module = _zstandard("packing a golden")
        self._sink = _Sink(target)
        self._writer = module.ZstdCompressor(level=LEVEL, threads=THREADS).stream_writer(
            self._sink, closefd=False
        )
        self.size = 0  #: bytes fed

    def feed(self, data: bytes) -> None:
        """Pack the next bytes."""
        self._writer.write(data)
        self.size += len(data)

    def skip(self, length: int) -> None:
        """Pack a hole, as zeros."""
        while length > 0:
            count = min(length, PIECE)
            self.feed(_ZEROS[:count])
            length -= count

    def finish(self, media_type: str, title: str) -> Descriptor:
        """Finish, and return the descriptor of what was written."""
        self._writer.close()
        return Descriptor(
            media_type=media_type,
            digest=f"sha256:{self._sink.hash.hexdigest()}",
            size=self._sink.size,
            title=title,
        )


def unpack(packed: BinaryIO, blob: Descriptor, size: int, name: str) -> Iterator[bytes]:
    """Yield the contents of a layer, which has *size* bytes unpacked.

    They are verified when the iterator ends. Raises HostileImage, DigestMismatch, MissingCapability
    and OSError; *name* is for messages.
    """
    module = _zstandard(f"unpacking {name}")
    source = _Source(packed)
    shown = blob.title or "a part"
    done = 0
    try:
        decompressor = module.ZstdDecompressor(max_window_size=WINDOW)
        with decompressor.stream_reader(source, read_size=_READ, closefd=False) as reader:
            while done < size:
                piece = reader.read(min(PIECE, size - done))
                if not piece:
                    break
                done += len(piece)
                yield piece
            more = bool(reader.read(1))
    except module.ZstdError as error:
        source.drain()
        source.check(blob, name)  # damage explains the error
        raise HostileImage(f"{name} cannot be used: {shown} cannot be unpacked: {error}") from error
    source.drain()
    source.check(blob, name)
    if more or done != size:
        amount = "more" if more else "fewer"
        raise HostileImage(f"{name} cannot be used: {shown} has {amount} bytes than it declares")


def _zstandard(what: str) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingCapability(
            f"{what} requires zstd, which this Python does not support",
            hint="in armvm's environment: pip install zstandard (pipx inject armvm zstandard)",
        ) from error
    return zstandard


class _Sink:
    def __init__(self, target: BinaryIO) -> None:
        self._target, self.hash, self.size = target, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._target.write(data)
        self.hash.update(data)
        self.size += len(data)
        return len(data)


class _Source:
    def __init__(self, packed: BinaryIO) -> None:
        self._packed, self._hash, self._size = packed, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._packed.read(size)
        self._hash.update(data)
        self._size += len(data)
        return data

    def drain(self) -> None:
        while self.read(_READ):
            pass

    def check(self, blob: Descriptor, name: str) -> None:
        found = f"sha256:{self._hash.hexdigest()}"
        if self._size != blob.size or found != blob.digest:
            raise mismatch(blob, found, name)
