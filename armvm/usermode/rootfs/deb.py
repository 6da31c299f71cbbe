"""Debian packages without compression: an emulated dpkg unpacks them in a tenth of the time.

A package is an ar archive (deb(5)); its members are control.tar and data.tar, compressed or not.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, BinaryIO

from armvm.base import process, programs
from armvm.base.errors import BuildFailed, CommandFailed

_MAGIC = b"!<arch>\n"
_PIECE = 1 << 20

#: How a member is decompressed, by the end of its name. Ubuntu's packages are compressed with zstd.
_OPEN: Mapping[str, Callable[[IO[bytes]], Any]] = {
    ".xz": lzma.LZMAFile,
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
}


def name_of(deb: Path) -> str:
    """Return the package's name, from the name of a file that apt downloaded."""
    return deb.name.partition("_")[0]


def unpacked(debs: Iterable[Path], directory: Path) -> None:
    """Write copies of *debs* without compression to *directory*. Raises BuildFailed, OSError."""
    # The decompressors run without Python's lock.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        for _ in pool.map(lambda deb: _copy(deb, directory / deb.name), debs):
            pass


def _copy(deb: Path, target: Path) -> None:
    try:
        with deb.open("rb") as source, target.open("xb") as out:
            out.write(_MAGIC)
            for name, size in _members(source):
                start = source.tell()
                _add(source, name, size, out)
                source.seek(start + size + size % 2)
    except (
        EOFError,
        ValueError,
        lzma.LZMAError,
        zlib.error,
        gzip.BadGzipFile,
        CommandFailed,
    ) as error:
        raise BuildFailed(f"package {deb.name} cannot be unpacked: {error}") from error


def _members(source: BinaryIO) -> Iterator[tuple[str, int]]:
    """Yield the members' names and sizes, each with the file at the start of its contents."""
    if source.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is not a Debian package")
    while header := source.read(60):
        yield header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])


def _add(source: BinaryIO, name: str, size: int, out: BinaryIO) -> None:
    """Append a member to *out*, without compression if its kind is known."""
    stem, dot, kind = name.rpartition(".")
    member = io.BufferedReader(_Member(source, size), _PIECE)
    place = out.tell()
    out.write(bytes(60))
    if opener := _OPEN.get(dot + kind):
        shutil.copyfileobj(opener(member), out, _PIECE)
        name = stem
    elif kind == "zst" and shutil.which("zstd", path=programs.search_path()):
        process.stream(
            ["zstd", "--quiet", "--decompress", "--stdout"],
            lambda stream: shutil.copyfileobj(member, stream, _PIECE),
            lambda stream: shutil.copyfileobj(stream, out, _PIECE),
        )
        name = stem
    else:
        shutil.copyfileobj(member, out, _PIECE)
    length = out.tell() - place - 60
    out.write(b"\n" * (length % 2))
    out.seek(place)
    out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{length:<10}`\n".encode())
    out.seek(0, os.SEEK_END)


class _Member(io.RawIOBase):
    """The next *size* bytes of a file."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        self._source, self._left = source, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)
