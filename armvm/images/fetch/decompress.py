"""Unpack gzip, xz and zstd while a file arrives, with limits on memory and output.

The first bytes show whether an image is packed. The output is sparse: blocks of zeros become
holes. A decompression bomb stops at *limit*, or when the disk is full. The free space is checked
on the way, because no format states its unpacked size reliably at the start.
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from armvm.base.errors import HostileImage, MissingCapability
from armvm.base.progress import size_text
from armvm.images.digest import Hashes

#: Maximum unpacked size of an image, in bytes, including holes (64 GiB: Ubuntu's, Fedora's and
#: Debian's disks have under 6 GiB).
MAX_UNPACKED = 64 << 30

#: An output of more than SPARED bytes may be at most RATIO times its input, so that the input
#: bounds a bomb's work. Packed disks grow 4 to 30 times in practice; zeros grow 1,000 times with
#: gzip, 7,000 times with xz.
SPARED = 1 << 30
RATIO = 256

#: Maximum output of one call, in bytes.
_PIECE = 1 << 20
#: Memory limit for xz, whose dictionary sets its needs; its presets need at most 65 MiB.
_XZ_MEMORY = 96 << 20
#: Maximum window of zstd: its program's default limit is 128 MiB (RFC 8878 recommends to support
#: 8 MiB).
_ZSTD_WINDOW = 32 << 20
#: zstandard's object does not limit its output. A block has at least 4 bytes and unpacks to at
#: most 128 KiB, so this many bytes unpack to at most 16 MiB.
_ZSTD_SLICE = 512
_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)
#: Bytes written between two checks of the free space.
_ROOM = 64 << 20


class Unpacker:
    """Takes a file's bytes in order, and writes their contents to *target* if they are packed.

    *room* is called with the number of bytes that follow, and raises if they do not fit.
    """

    def __init__(
        self,
        target: Path,
        *,
        name: str,
        room: Callable[[int], None],
        limit: int = MAX_UNPACKED,
        spared: int = SPARED,
    ) -> None:
        self._target, self._name, self._room, self._limit = target, name, room, limit
        self._spared, self._fed = spared, 0
        self._head: bytes | None = b""  # None once the format is known
        self._inflate: Callable[[bytes], Iterator[bytes]] | None = None
        self._file: BinaryIO | None = None
        self._hashes = Hashes()
        self._size = self._written = 0
        self._whole: Callable[[], bool] = lambda: True

    def feed(self, chunk: bytes) -> None:
        """Process the next bytes. Raises HostileImage, MissingCapability (zstd), OSError."""
        self._fed += len(chunk)
        if self._head is not None:
            self._head += chunk
            if len(self._head) < 6:
                return
            chunk, self._head = self._head, None
            self._choose(chunk)
        if self._inflate is not None and self._file is not None:
            try:
                for piece in self._inflate(chunk):
                    self._write(self._file, piece)
            except (zlib.error, lzma.LZMAError, EOFError) as error:
                raise self._broken(str(error)) from error

    def finish(self) -> str | None:
        """Finish; return the ``sha256:HEX`` of the output, or None if the file was not packed."""
        if self._file is None:
            return None
        if not self._whole():
            raise self._broken("it is truncated")
        self._file.truncate(self._size)
        os.fsync(self._file.fileno())
        self.close()
        return self._hashes.sha256

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _choose(self, head: bytes) -> None:
        maker: Callable[[], Any]
        if head[:2] == b"\x1f\x8b":
            maker = _Gzip
        elif head[:6] == b"\xfd7zXZ\x00":
            maker = _xz
        elif head[:4] == b"\x28\xb5\x2f\xfd":
            maker = _zstd(self._name)
        else:
            return
        streams = _Streams(maker)
        self._inflate, self._whole = streams.feed, lambda: streams.whole
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._target, flags, 0o600), "wb", buffering=0)

    def _write(self, file: BinaryIO, piece: bytes) -> None:
        if self._size + len(piece) > self._limit:
            raise HostileImage(
                f"{self._name} unpacks to more than {size_text(self._limit)}",
                hint="no cloud image is that large; do not trust its source",
            )
        if self._size + len(piece) > max(self._spared, self._fed * RATIO):
            raise HostileImage(
                f"{self._name} unpacks to more than {RATIO} times its size",
                hint="no cloud image compresses that well; do not trust its source",
            )
        self._hashes.update(piece)
        for start in range(0, len(piece), _BLOCK):
            block = piece[start : start + _BLOCK]
            if block != _ZEROS[: len(block)]:
                if self._written % _ROOM + len(block) >= _ROOM or not self._written:
                    self._room(_ROOM)
                write_all(file, block, self._size + start)
                self._written += len(block)
        self._size += len(piece)

    def _broken(self, why: str) -> HostileImage:
        return HostileImage(
            f"{self._name} cannot be unpacked: {why}",
            hint="download it again, or from another server",
        )


def write_all(file: BinaryIO, data: bytes, offset: int) -> None:
    """Write all of *data* at *offset*, also if the disk accepts only a part at a time."""
    view = memoryview(data)
    while view:
        count = os.pwrite(file.fileno(), view, offset)
        view, offset = view[count:], offset + count


class _Streams:
    """Consecutive packed streams, as gzip and xz allow; zeros between them are padding."""

    def __init__(self, maker: Callable[[], Any]) -> None:
        self._maker, self._stream = maker, maker()
        self.whole = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or not self._stream.needs_input:
            if self._stream.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._stream, self.whole = self._maker(), False
            piece = self._stream.decompress(data, _PIECE)
            data = b""
            if piece:
                yield piece
            if self._stream.eof:
                self.whole, data = True, self._stream.unused_data
                if not data:
                    return


class _Gzip:
    """zlib's object with lzma's interface."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._more = False

    def decompress(self, data: bytes, most: int) -> bytes:
        piece = self._object.decompress(self._object.unconsumed_tail + data, most)
        # The limit was reached: zlib may hold more output, even without input left.
        self._more = len(piece) == most
        return piece

    @property
    def needs_input(self) -> bool:
        return not self._more and not self._object.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _zstd(name: str) -> Callable[[], Any]:
    try:
        import zstandard
    except ImportError as error:
        raise MissingCapability(
            f"{name} is packed with zstd, which this Python does not support",
            hint="in armvm's environment: pip install zstandard (pipx inject armvm zstandard), "
            "or download it, run unzstd, and use the file",
        ) from error

    class Zstd:
        """zstandard's object with lzma's interface."""

        def __init__(self) -> None:
            decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
            self._object = decompressor.decompressobj()
            self._rest = b""

        def decompress(self, data: bytes, most: int) -> bytes:
            data, start = self._rest + data, 0
            pieces, size = [], 0
            while start < len(data) and size < most and not self._object.eof:
                try:
                    piece = self._object.decompress(data[start : start + _ZSTD_SLICE])
                except zstandard.ZstdError as error:
                    raise EOFError(str(error)) from error
                start += _ZSTD_SLICE
                pieces.append(piece)
                size += len(piece)
            self._rest = data[start:]
            if self._object.eof:
                self.unused_data, self._rest = self._object.unused_data + self._rest, b""
            return b"".join(pieces)

        unused_data = b""

        @property
        def needs_input(self) -> bool:
            return not self._rest

        @property
        def eof(self) -> bool:
            return bool(self._object.eof)

    return Zstd
