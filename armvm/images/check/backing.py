"""Take the backing file out of a qcow2 image's header, and put one in.

A golden's overlay travels without the name of its backing file. So armvm rejects every file that
names one, as for any image, and only then sets its own. Layout: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct

from armvm.base.errors import HostileImage
from armvm.images.check.qcow2 import MAGIC

#: The header up to the cluster bits, and the length of a version 3 header.
_START = struct.Struct(">4sIQII")
_LENGTH_OFFSET, _V2_LENGTH = 100, 72
_EXTENSION = struct.Struct(">II")
_END, _BACKING_FORMAT = 0, 0xE2792ACA
#: Maximum length of a backing file's name, which QEMU allows.
MAX_NAME = 1023


def cluster_size(head: bytes) -> int:
    """Return the cluster size of a qcow2 image, which its first *head* bytes tell."""
    if len(head) < 104 or head[:4] != MAGIC or not 9 <= _START.unpack_from(head)[4] <= 21:
        raise HostileImage("the disk cannot be used: it is not a qcow2 image")
    return 1 << int(_START.unpack_from(head)[4])


def set_backing(cluster: bytes, path: str | None) -> bytes:
    """Return a qcow2 image's first cluster with the backing file *path*; None: without one.

    The header's other extensions stay. Raises HostileImage if the cluster is not a valid header, or
    has no space for the path.
    """
    size = cluster_size(cluster)
    version = _START.unpack_from(cluster)[1]
    length = struct.unpack_from(">I", cluster, _LENGTH_OFFSET)[0] if version == 3 else _V2_LENGTH
    if version not in (2, 3) or len(cluster) != size or not _V2_LENGTH <= length <= size:
        raise HostileImage("the disk cannot be used: invalid qcow2 header")
    extensions = b"".join(
        _pack(kind, data) for kind, data in _extensions(cluster, length) if kind != _BACKING_FORMAT
    )
    name = b"" if path is None else path.encode()
    if path is not None:
        if not 0 < len(name) <= MAX_NAME:
            raise HostileImage(f"the path of the backing file is too long: {path}")
        extensions += _pack(_BACKING_FORMAT, b"qcow2")
    extensions += _EXTENSION.pack(_END, 0)
    offset = length + len(extensions)
    if offset + len(name) > size:
        raise HostileImage("the disk cannot be used: its qcow2 header has no space")
    header = bytearray(cluster[:length])
    struct.pack_into(">QI", header, 8, offset if name else 0, len(name))
    return (bytes(header) + extensions + name).ljust(size, b"\0")


def _extensions(cluster: bytes, start: int) -> list[tuple[int, bytes]]:
    found = []
    while start + _EXTENSION.size <= len(cluster):
        kind, length = _EXTENSION.unpack_from(cluster, start)
        start += _EXTENSION.size
        if kind == _END:
            break
        if start + length > len(cluster):
            raise HostileImage("the disk cannot be used: invalid qcow2 header")
        found.append((kind, cluster[start : start + length]))
        start += -(-length // 8) * 8
    return found


def _pack(kind: int, data: bytes) -> bytes:
    return _EXTENSION.pack(kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")
