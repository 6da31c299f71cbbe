"""Copy a volume byte by byte, so that its format, backing file and inner layout stay.

libvirt's own copying (`storage.copy_volume`) reads a volume as a guest would, and the copy of an
overlay loses its backing file. Streams copy any volume unchanged, on local and remote hosts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from armvm.base.errors import StorageError
from armvm.host.connection import Connection, Pool, Volume, errors
from armvm.host.storage import pools, volumes

#: Bytes per piece, held in memory during the copy. Pieces of zeros become holes.
PIECE = 8 << 20


def duplicate(
    connection: Connection,
    pool: Pool,
    name: str,
    source: Volume,
    on_bytes: Callable[[int], None] = lambda _done: None,
) -> Volume:
    """Create the volume *name* with the bytes of *source*, which must not be written to.

    Calls *on_bytes* with the bytes done. An interruption leaves nothing. Raises StorageError.
    """
    size = volumes.physical_size(source)
    target = volumes.create_hole(pool, name, size)
    try:
        # The first piece is written last: without it, a leftover is not a bootable qcow2.
        for done, offset in enumerate(reversed(range(0, size, PIECE))):
            length = min(PIECE, size - offset)
            data = _read(connection, source, offset, length)
            if len(data) != length:
                raise StorageError(f"the volume {source.name()} changed while armvm was copying it")
            if data.count(0) != length:
                _write(connection, target, offset, data)
            on_bytes(min(size, (done + 1) * PIECE))
    except BaseException:
        volumes.delete_volume(target)
        raise
    with errors("reading the storage pool"):
        pools.refresh(pool)  # lets libvirt detect its format
    return target


def link_or_duplicate(
    connection: Connection,
    pool: Pool,
    name: str,
    source: Volume,
    on_bytes: Callable[[int], None],
    *,
    local: bool,
) -> Volume:
    """Give a volume a second name that outlives the first: a hard link if possible, else a copy."""
    if local:
        with errors(f"reading the volume {name}"):
            path = source.path()
        with contextlib.suppress(OSError):
            os.link(path, os.path.join(os.path.dirname(path), name))  # noqa: PTH118, PTH120
            with errors("reading the storage pool"):
                pools.refresh(pool)
            return volumes.need_volume(pool, name)
    return duplicate(connection, pool, name, source, on_bytes)


def _read(connection: Connection, volume: Volume, offset: int, length: int) -> bytes:
    parts: list[bytes] = []
    with errors(f"reading the volume {volume.name()}"), _stream(connection) as stream:
        volume.download(stream, offset, length, 0)
        stream.recvAll(lambda _stream, data, _opaque: parts.append(data), None)
        stream.finish()
    return b"".join(parts)


def _write(connection: Connection, volume: Volume, offset: int, data: bytes) -> None:
    rest = memoryview(data)

    def take(_stream: object, count: int, _opaque: object) -> bytes:
        nonlocal rest
        chunk, rest = rest[:count], rest[count:]
        return bytes(chunk)

    with errors(f"writing the volume {volume.name()}"), _stream(connection) as stream:
        volume.upload(stream, offset, len(data), 0)
        stream.sendAll(take, None)
        stream.finish()


@contextmanager
def _stream(connection: Connection) -> Iterator[Any]:
    stream = connection.newStream(0)
    try:
        yield stream
    except BaseException:
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()
        raise
