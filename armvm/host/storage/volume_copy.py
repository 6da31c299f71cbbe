"""Copy a volume byte by byte, so that its format, backing file and inner layout stay.

libvirt's own copying (`storage.copy_volume`) reads a volume as a guest would, and the copy of an
overlay loses its backing file. Streams copy any volume unchanged, on local and remote hosts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from armvm.base.errors import StorageError
from armvm.host.connection import Connection, Pool, Volume, errors
from armvm.host.storage import pools, transfer, volumes

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
            data = transfer.read(connection, source, offset=offset, length=length)
            if len(data) != length:
                raise StorageError(f"the volume {source.name()} changed while armvm was copying it")
            if data.count(0) != length:
                transfer.overwrite(connection, target, data, offset=offset)
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
