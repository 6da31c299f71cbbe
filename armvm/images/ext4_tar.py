"""Write the files of an ext4 file system as a tar archive, for ``tar --extract``.

Owners, modes, times, hard links, holes and extended attributes are kept. Device files, sockets and
pipes are left out: udev and the programs make them. The form of files with holes is GNU tar's
"PAX format, version 1.0".
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import IO

from armvm.images.check.guest_disk import Unreadable
from armvm.images.ext4 import MAX_PATH, Ext4, Inode, Run

_PIECE = 1 << 20
_BLOCK = 512

#: GNU tar's options to unpack it, apart from --directory.
OPTIONS = (
    *("--extract", "--preserve-permissions", "--same-owner", "--numeric-owner"),
    *("--xattrs", "--xattrs-include=*", "--warning=no-unknown-keyword", "--warning=no-timestamp"),
)


def write(system: Ext4, out: IO[bytes], on_bytes: Callable[[int], None]) -> None:
    """Write all files of *system* to *out*; *on_bytes* is called with the bytes written so far.

    Raises Unreadable for a corrupt file system; OSError.
    """
    first: dict[int, bytes] = {}
    with tarfile.open(
        fileobj=out,
        mode="w|",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for path, inode in _walk(system):
            info = _member(path, inode)
            if inode.is_directory:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif inode.number in first:
                info.type, info.linkname = tarfile.LNKTYPE, _text(first[inode.number])
                archive.addfile(info)
            elif inode.is_link:
                info.type, info.linkname = tarfile.SYMTYPE, _text(system.link_target(inode))
                archive.addfile(info)
            elif inode.is_file:
                first[inode.number] = path
                _add_file(archive, system, inode, info)
            on_bytes(archive.offset)


def _walk(system: Ext4) -> Iterator[tuple[bytes, Inode]]:
    """Yield the files, each directory before its contents. Raises Unreadable for a loop."""
    root = system.root
    seen = {root.number}
    yield b".", root
    todo = [(b".", root)]
    while todo:
        above, directory = todo.pop()
        for name, number in system.entries(directory):
            path = above + b"/" + name
            inode = system.inode(number)
            if len(path) > MAX_PATH:
                raise Unreadable("a path is too long")
            if inode.is_directory:
                if number in seen:
                    raise Unreadable("a directory is in two places")
                seen.add(number)
                todo.append((path, inode))
            yield path, inode


def _member(path: bytes, inode: Inode) -> tarfile.TarInfo:
    info = tarfile.TarInfo(_text(path))
    info.mode = stat.S_IMODE(inode.mode)
    info.uid, info.gid, info.mtime = inode.uid, inode.gid, inode.mtime
    info.pax_headers = {f"SCHILY.xattr.{key}": _text(value) for key, value in inode.xattrs.items()}
    return info


def _add_file(archive: tarfile.TarFile, system: Ext4, inode: Inode, info: tarfile.TarInfo) -> None:
    runs = system.runs(inode)
    held = sum(run.length for run in runs)
    head = b""
    if held != inode.size:
        pairs = [(run.offset, run.length) for run in runs]
        if not runs or runs[-1].offset + runs[-1].length < inode.size:
            pairs.append((inode.size, 0))
        head = "".join(
            f"{n}\n" for n in (len(pairs), *(n for pair in pairs for n in pair))
        ).encode()
        head += bytes(-len(head) % _BLOCK)
        info.pax_headers = {
            **info.pax_headers,
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": info.name,
            "GNU.sparse.realsize": str(inode.size),
        }
    info.size = len(head) + held
    archive.addfile(info, _Contents(head, system, runs))  # type: ignore[arg-type]


class _Contents:
    """A file's data for tarfile: *head*, and then the runs."""

    def __init__(self, head: bytes, system: Ext4, runs: list[Run]) -> None:
        self._pieces = self._all(head, system, runs)
        self._rest = b""

    @staticmethod
    def _all(head: bytes, system: Ext4, runs: list[Run]) -> Iterator[bytes]:
        yield head
        for run in runs:
            for at in range(0, run.length, _PIECE):
                yield system.data(run.place + at, min(_PIECE, run.length - at))

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes; fewer only at the end."""
        pieces, have = [self._rest], len(self._rest)
        while have < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        self._rest = data[size:]
        return data[:size]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
