"""An OCI image layout in a tar archive: written in one pass, read by offset.

The archive is untrusted. armvm reads it with its own parser, which knows ordinary files and
directories and nothing else: no links, no extensions. No path in the archive is used as a path:
a name is only compared with the names of a layout. Source: POSIX.1-1988, "ustar"; GNU tar's
base-256 numbers.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from armvm.base.errors import HostileImage
from armvm.images.oci.document import MAX_DOCUMENT, Descriptor, check_blob, dump

_BLOCK = 512
#: Maximum number of files and directories.
MAX_MEMBERS = 128
_NAME = re.compile(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}")
_COPY = 1 << 20
LAYOUT = dump({"imageLayoutVersion": "1.0.0"})


class Writer(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes, /) -> int:
        """Take the next bytes."""

    def flush(self) -> None:
        """Pass on what was written."""


@dataclass(frozen=True)
class Archive:
    """The layout in the open *file*, which can be read at any offset; *name* is for messages."""

    file: BinaryIO
    name: str
    members: dict[str, tuple[int, int]]  #: offset and size

    def index(self) -> bytes:
        """Return the index. Raises HostileImage."""
        offset, size = self._member("index.json")
        if size > MAX_DOCUMENT:
            raise self._broken("its index is too large")
        return self._read(offset, size)

    def document(self, blob: Descriptor) -> bytes:
        """Return a small blob, verified. Raises HostileImage and DigestMismatch."""
        if blob.size > MAX_DOCUMENT:
            raise self._broken("a document in it is too large")
        self.open(blob)
        return check_blob(self._read(self._member(blob.path)[0], blob.size), blob, self.name)

    def open(self, blob: Descriptor) -> BinaryIO:
        """Return a blob's bytes as a file, still unverified. Raises HostileImage."""
        offset, size = self._member(blob.path)
        if size != blob.size:
            raise self._broken(
                f"{blob.title or 'a part'} has {size} bytes, but its manifest says {blob.size}"
            )
        return io.BufferedReader(_Part(self.file.fileno(), offset, size), 1 << 17)

    def _member(self, path: str) -> tuple[int, int]:
        if path not in self.members:
            raise self._broken(f"{path} is missing")
        return self.members[path]

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self.file.fileno(), size, offset)
        if len(data) != size:
            raise self._broken("it is truncated")
        return data

    def _broken(self, why: str) -> HostileImage:
        return broken(self.name, why)


def broken(name: str, why: str) -> HostileImage:
    """Return the error for an unusable archive."""
    return HostileImage(f"{name} cannot be used: {why}", hint="export or download it again")


def scan(file: BinaryIO, name: str) -> Archive:
    """Return the layout in an archive; reads only the headers. Raises HostileImage."""
    end = os.fstat(file.fileno()).st_size
    members: dict[str, tuple[int, int]] = {}
    offset = count = 0
    while True:
        header = os.pread(file.fileno(), _BLOCK, offset)
        if len(header) < _BLOCK:
            raise broken(name, "it is truncated" if count else "it is not a tar archive")
        if not any(header):
            break
        count += 1
        if count > MAX_MEMBERS:
            raise broken(name, f"it has more than {MAX_MEMBERS} entries")
        path, kind, size = _parse(header, name)
        start = offset + _BLOCK
        if size > end - start:
            raise broken(name, "it is truncated")
        if kind == "5" and not size:
            if path.rstrip("/") not in (".", "blobs", "blobs/sha256"):
                raise broken(name, "it contains files that are not part of an OCI layout")
        elif kind in ("0", "\0") and _NAME.fullmatch(path):
            if path in members:
                raise broken(name, f"it contains {path} twice")
            members[path] = (start, size)
        else:
            raise broken(name, "it contains files that are not part of an OCI layout")
        offset = start + -(-size // _BLOCK) * _BLOCK
    if "oci-layout" not in members:
        raise broken(name, "it is not an OCI layout")
    return Archive(file, name, members)


def write(
    target: Writer,
    index: bytes,
    blobs: Sequence[tuple[Descriptor, bytes | Path]],
    told: Callable[[int], None] = lambda _done: None,
) -> None:
    """Write a layout to *target* in one pass. *told* is called with the bytes done.

    Documents come first, so that a reader sees what follows. Raises OSError.
    """
    done = 0
    documents: list[tuple[str, bytes | Path]] = [("oci-layout", LAYOUT), ("index.json", index)]
    written: set[str] = set()
    for path, source in [*documents, *((blob.path, data) for blob, data in blobs)]:
        if path in written:
            continue
        written.add(path)
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        member = tarfile.TarInfo(path)
        member.size, member.mode = size, 0o644
        target.write(member.tobuf(tarfile.GNU_FORMAT))
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as data:
            while chunk := data.read(_COPY):
                target.write(chunk)
                done += len(chunk)
                told(done)
        target.write(bytes(-size % _BLOCK))
    target.write(bytes(2 * _BLOCK))
    target.flush()


def _parse(header: bytes, name: str) -> tuple[str, str, int]:
    """Return an entry's path, type and size."""
    try:
        # The sum is taken with spaces in its own place.
        expected = sum(header[:148]) + sum(header[156:]) + 8 * 32
        if _number(header[148:156]) != expected:
            raise ValueError("checksum")
        size = _number(header[124:136])
        path = _text(header[:100])
        if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
            path = f"{prefix}/{path}"
    except ValueError as error:
        raise broken(name, "it is not a tar archive") from error
    kind = chr(header[156])
    if kind in "xgLK":
        raise broken(name, "it has tar extensions, which an OCI layout does not need")
    return path.removeprefix("./") or ".", kind, size


def _number(digits: bytes) -> int:
    if digits[0] & 0x80:
        found = int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    else:
        found = int(digits.rstrip(b"\0 ").decode("ascii") or "0", 8)
    if not 0 <= found < 1 << 62:
        raise ValueError("number out of range")
    return found


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("ascii")


class _Part(io.RawIOBase):
    """A part of a file, read without moving the file's position."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor, self._offset, self._end = descriptor, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        most = min(len(buffer), self._end - self._offset)
        data = os.pread(self._descriptor, most, self._offset)
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)
