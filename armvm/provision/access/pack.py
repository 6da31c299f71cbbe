"""Packs a host directory into a tar archive for a guest."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from armvm.provision.access.exclude import Exclude

#: A file's state: inode, size in bytes, modification time in nanoseconds.
Stamp = tuple[int, int, int]
#: Types other than file, directory and link: by stat(2) type, and by find(1) letter.
_KINDS = {stat.S_IFIFO: "p", stat.S_IFSOCK: "s", stat.S_IFBLK: "b", stat.S_IFCHR: "c"}
SPECIAL = {"p": "a FIFO", "s": "a socket", "b": "a block device", "c": "a character device"}
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The results for a directory's entries, by their paths in it.

    ``stamps`` has the packed files and links, ``skipped`` the reason for each entry that cannot be
    packed, ``excluded`` the entries that a pattern excludes.
    """

    stamps: dict[str, Stamp] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)


def stamp(status: os.stat_result) -> Stamp:
    """Return a file's stamp."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def pack(
    directory: Path, out: IO[bytes], exclude: Exclude | None = None, *, follow: bool = False
) -> Packed:
    """Write the files, directories and symbolic links in *directory* to *out* as a tar archive.

    Leaves out sockets, FIFOs, devices, all owners, and the holes of sparse files. With *follow*,
    symbolic links are replaced by what they lead to. Raises OSError if a file cannot be read, or a
    link leads to nothing or to a directory above itself.
    """
    packed = Packed()
    with tarfile.open(
        fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, dereference=follow
    ) as archive:
        for path, found in _walk(directory, exclude or Exclude(), packed, follow):
            special = _KINDS.get(stat.S_IFMT(found.st_mode))
            if special:
                packed.skipped[path] = SPECIAL[special]
                continue
            info = archive.gettarinfo(directory / path, f"./{path}")
            if info is None:
                continue
            if info.islnk():  # the guest gets hard links as separate files
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", found.st_size
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode &= 0o777
            if info.isreg():
                with (directory / path).open("rb") as file:
                    _add_file(archive, info, file)
            else:
                archive.addfile(info)
            if not info.isdir():
                packed.stamps[path] = stamp(found)
    return packed


def _walk(
    directory: Path, exclude: Exclude, packed: Packed, follow: bool
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and state of each entry that is not excluded, a directory before its contents."""
    # Each with the inodes of the directories above it. A tree may be deeper than Python's stack.
    todo: list[tuple[str, os.stat_result, tuple[tuple[int, int], ...]]]
    todo = [("", directory.stat(), ())]
    while todo:
        below, found, above = todo.pop()
        if below:
            yield below, found
        if not stat.S_ISDIR(found.st_mode):
            continue
        if follow:
            if (found.st_dev, found.st_ino) in above:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(directory / below))
            above = (*above, (found.st_dev, found.st_ino))
        with os.scandir(directory / below) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        fresh = []
        for entry in ordered:
            path = posixpath.join(below, entry.name)
            status = entry.stat(follow_symlinks=follow)
            if exclude.matches(path, directory=stat.S_ISDIR(status.st_mode)):
                packed.excluded.append(path)
            else:
                fresh.append((path, status, above))
        todo.extend(reversed(fresh))


def _add_file(archive: tarfile.TarFile, info: tarfile.TarInfo, file: IO[bytes]) -> None:
    """Add a file, a sparse one in GNU's sparse format 1.0, which tarfile can read but not write.

    Source: GNU tar's manual, "Storing Sparse Files": the map of the pieces comes first, as decimal
    numbers, one per line, padded to a block.
    """
    pieces = list(_pieces(file.fileno(), info.size))
    if sum(length for _, length in pieces) == info.size:
        archive.addfile(info, file)
        return
    pieces.append((info.size, 0))  # the end of the last hole, as GNU tar writes it
    numbers = [len(pieces), *(number for piece in pieces for number in piece)]
    head = "".join(f"{number}\n" for number in numbers).encode()
    head += b"\0" * (-len(head) % _BLOCK)
    folder, name = posixpath.split(info.name)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(info.size),
    }
    info.name = posixpath.join(folder, "GNUSparseFile.0", name)
    info.size = len(head) + sum(length for _, length in pieces)
    archive.addfile(info, _Pieces(head, file, pieces))  # type: ignore[arg-type]


class _Pieces:
    """A readable stream of a sparse file's map and then its pieces."""

    def __init__(self, head: bytes, file: IO[bytes], pieces: list[tuple[int, int]]) -> None:
        self._rest, self._file, self._pieces = head, file, list(pieces)
        self._left = 0

    def read(self, size: int) -> bytes:
        """Return *size* bytes, fewer only at the end."""
        while len(self._rest) < size and (self._left or self._pieces):
            if not self._left:
                at, self._left = self._pieces.pop(0)
                self._file.seek(at)
            data = self._file.read(min(self._left, size))
            if not data:
                break  # the file was truncated while it was read
            self._left -= len(data)
            self._rest += data
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def _pieces(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each data piece of a file; one piece if holes are unsupported."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: nothing but a hole up to the end
                yield at, size - at
            break
        if begin < size:
            yield begin, at - begin
    os.lseek(descriptor, 0, os.SEEK_SET)
