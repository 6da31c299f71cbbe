"""Take the disk out of a tar archive, as Kali, Debian and Google's cloud publish them.

The archive is untrusted: it is read from a file, and a budget bounds what its headers cost. Nothing
is extracted by name. tarfile reads the headers; the archive may have been written with ``tar
--sparse``, of which there are four forms.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from armvm.base.errors import HostileImage
from armvm.images.cache.files import storage_errors
from armvm.images.fetch.decompress import MAX_UNPACKED, write_all

#: Maximum bytes of headers, including the maps of sparse files: room for 100,000 extents.
MAX_HEADERS = 4 << 20

#: Blocks of zeros become holes.
_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)


def is_tar(head: bytes) -> bool:
    """Return whether a file that begins with *head* (512 bytes or more) is a tar archive."""
    return head[257:262] == b"ustar"


def extract(archive: Path, target: Path, *, name: str, room: Callable[[int], None]) -> None:
    """Write the only file in *archive* to *target*, which exists.

    *name* is for messages; *room* is called with the bytes that follow, and raises if they do not
    fit. Raises HostileImage if the archive has not exactly one file, or is broken; StorageError.
    """
    try:
        with archive.open("rb", buffering=0) as file:
            member = _only_file(file, name)
            room(os.fstat(file.fileno()).st_blocks * 512)
            with storage_errors(target), target.open("r+b", buffering=0) as out:
                for source, start, size in _extents(member, archive.stat().st_size):
                    _copy(file, out, source, start, size)
                out.truncate(member.size)
                os.fsync(out.fileno())
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise _broken(name, str(error)[:200] or "it is truncated") from error
    except RecursionError:  # tarfile reads headers of headers that way
        raise _broken(name, "it has too many headers") from None


class _Budget(io.RawIOBase):
    """A file of which only so many bytes can be read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_HEADERS

    def read(self, size: int = -1, /) -> bytes:
        self._left -= size
        if size < 0 or self._left < 0:
            raise ValueError("its headers are too large")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _only_file(file: BinaryIO, name: str) -> tarfile.TarInfo:
    found: list[tarfile.TarInfo] = []
    # Closing it does nothing: the file is the caller's.
    with tarfile.open(fileobj=_Budget(file), mode="r:") as members:
        for member in members:
            if member.isdir():
                continue
            if not member.isreg() or found:
                raise HostileImage(
                    f"{name} is a tar archive of more than a disk",
                    hint="unpack it, and give the disk image in it",
                )
            found.append(member)
    if not found:
        raise _broken(name, "it contains no file")
    if found[0].size > MAX_UNPACKED:
        raise _broken(name, "its disk is too large")
    return found[0]


def _extents(member: tarfile.TarInfo, whole: int) -> Iterator[tuple[int, int, int]]:
    """Yield the places of the data in the archive and in the disk, and their sizes, in bytes.

    *whole* is the archive's size. Raises ValueError if the map is not in order.
    """
    sparse: Any = member.sparse  # pairs of numbers; typeshed says bytes
    source, end = member.offset_data, 0
    for start, size in [(0, member.size)] if sparse is None else sparse:
        if not (size >= 0 and end <= start <= start + size <= member.size):
            raise ValueError("its map of holes is invalid")
        if source + size > whole:
            raise ValueError("it is truncated")
        yield source, start, size
        source, end = source + size, start + size


def _copy(file: BinaryIO, out: BinaryIO, source: int, target: int, size: int) -> None:
    for done in range(0, size, _BLOCK):
        data = os.pread(file.fileno(), min(_BLOCK, size - done), source + done)
        if data != _ZEROS[: len(data)]:
            write_all(out, data, target + done)


def _broken(name: str, why: str) -> HostileImage:
    return HostileImage(
        f"{name} cannot be unpacked: {why}", hint="download it again, or from another server"
    )
