"""Reading the serial log that virtlogd writes into the pool, also from far away."""

from __future__ import annotations

import os

import libvirt

from armvm.host.connection import Connection
from armvm.host.pools import refresh

#: How much of the log's end is looked at, in bytes: a whole boot writes some 60 KiB.
WINDOW = 256 << 10


def read_tail(connection: Connection, path: str | None, *, local: bool) -> bytes:
    """Return the last bytes of a serial log: the file itself where we can, else by libvirt.

    Empty while there is none. Bytes that come through libvirt need no rights on the file.
    """
    if path is None:
        return b""
    if local and os.access(path, os.R_OK):
        with open(path, "rb") as file:  # noqa: PTH123 - may vanish between the two calls
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - WINDOW))
            return file.read()
    return _download(connection, path)


def _download(connection: Connection, path: str) -> bytes:
    parts: list[bytes] = []
    try:
        pool = connection.storagePoolLookupByTargetPath(os.path.dirname(path))  # noqa: PTH120
        refresh(pool)
        volume = connection.storageVolLookupByPath(path)
        size = volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2]
        stream = connection.newStream(0)
        volume.download(stream, max(0, size - WINDOW), min(size, WINDOW), 0)
        stream.recvAll(lambda _stream, data, _opaque: parts.append(data), None)
        stream.finish()
    except libvirt.libvirtError:
        # Not written yet, rotated away just now, or the pool is gone: nothing to be read.
        return b""
    return b"".join(parts)
