"""Read the serial log that virtlogd writes into the pool, also over a remote connection.

virtlogd moves a log of 2 MiB to ``NAME.0``, the previous one to ``NAME.1``, and so on to
``NAME.2`` (its max_size and max_backups), and starts a new log with each start of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import libvirt

from armvm.host.connection import Connection
from armvm.host.storage.pools import refresh

#: How many bytes of the log's end are read: a whole boot writes some 60 KiB.
WINDOW = 256 << 10
#: How many older files are read; a virtlogd configured to keep more is not supported.
BACKUPS = 10


@dataclass(kw_only=True)
class Place:
    """How far a serial log has been read: *offset* bytes of the current file."""

    offset: int = 0


def read_tail(connection: Connection, path: str | None, *, local: bool) -> bytes:
    """Return the last bytes of a serial log: from the file if possible, else through libvirt.

    Empty before the first log. Reading through libvirt works without permission on the file.
    """
    return _read(connection, path, local, lambda size: max(0, size - WINDOW))[0] if path else b""


def read_older(connection: Connection, path: str, *, local: bool) -> bytes:
    """Return the parts of a log that virtlogd has rotated since the machine's start, in order."""
    parts = []
    for number in range(BACKUPS):
        data, size = _read(connection, f"{path}.{number}", local, lambda _size: 0)
        if not size:
            break
        parts.append(data)
    return b"".join(reversed(parts))


def read_on(connection: Connection, path: str, place: Place, *, local: bool) -> bytes:
    """Return a log's bytes after *place*, and advance *place*.

    If the log has become shorter, it was either rotated, and the rest is read from the rotated
    file, or restarted with the machine.
    """
    seen = place.offset
    data, size = _read(connection, path, local, lambda _size: seen)
    if size < seen:
        rest, moved = _read(connection, f"{path}.0", local, lambda _size: seen)
        fresh, _ = _read(connection, path, local, lambda _size: 0)
        place.offset = len(fresh)
        return (rest if moved >= seen else b"") + fresh
    place.offset += len(data)
    return data


def _read(
    connection: Connection, path: str, local: bool, begin: Callable[[int], int]
) -> tuple[bytes, int]:
    """Return a log file's bytes and its size; *begin* maps the size to the first offset.

    Empty if the file does not exist.
    """
    if local and os.access(path, os.R_OK):
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - may vanish between the two calls
                size = file.seek(0, os.SEEK_END)
                file.seek(min(size, begin(size)))
                return file.read(size - file.tell()), size
        except FileNotFoundError:
            return b"", 0
    return _download(connection, path, begin)


def _download(connection: Connection, path: str, begin: Callable[[int], int]) -> tuple[bytes, int]:
    parts: list[bytes] = []
    try:
        pool = connection.storagePoolLookupByTargetPath(os.path.dirname(path))  # noqa: PTH120
        refresh(pool)
        volume = connection.storageVolLookupByPath(path)
        size = int(volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2])
        start = min(size, begin(size))
        if start < size:  # a length of 0 means all of it
            stream = connection.newStream(0)
            volume.download(stream, start, size - start, 0)
            stream.recvAll(lambda _stream, data, _opaque: parts.append(data), None)
            stream.finish()
    except libvirt.libvirtError:
        # Not written yet, just rotated, or the pool was removed: nothing to read.
        return b"", 0
    return b"".join(parts), size
