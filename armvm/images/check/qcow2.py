"""Check a qcow2 header, so that QEMU never opens an image that refers to other files.

Source of the layout and the limits: QEMU's docs/interop/qcow2.txt. All numbers are big-endian.
An image may name a backing file or an external data file anywhere on the host; armvm rejects
both, and every unknown feature bit.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from armvm.base.errors import HostileImage
from armvm.settings.size import MAX_DISK

MAGIC = b"QFI\xfb"

# After the magic: version, backing file offset and length, cluster bits, virtual size,
# encryption, L1 entries, L1 offset, refcount table offset and clusters, snapshots, their offset.
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
# Incompatible, compatible, autoclear features; refcount order; header length.
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")

_DIRTY, _CORRUPT, _EXTERNAL_DATA, _COMPRESSION, _EXTENDED_L2 = (1 << n for n in range(5))
_KNOWN = _DIRTY | _CORRUPT | _EXTERNAL_DATA | _COMPRESSION | _EXTENDED_L2
_EXT_DATA_FILE, _EXT_LUKS = 0x44415441, 0x0537BE77
_MAX_L1_BYTES = 32 << 20  # QCOW_MAX_L1_SIZE
_MAX_REFCOUNT_BYTES = 8 << 20  # QCOW_MAX_REFTABLE_SIZE
_MAX_SNAPSHOTS = 65536

#: Returns the error for an image from (why, hint).
_Refuse = Callable[..., HostileImage]


@dataclass(frozen=True, kw_only=True)
class Qcow2:
    """A standalone qcow2 image. ``virtual_size`` and ``cluster_size`` are in bytes.

    ``l1_offset`` (in bytes) and the number of L1 entries locate the first table, the next fields
    the refcount table; the last two say whether L2 entries are extended, and whether compressed
    clusters use zstd. qcow2_tables.py checks the contents of the tables.
    """

    version: int
    virtual_size: int
    cluster_size: int
    l1_offset: int
    l1_entries: int
    refcount_offset: int
    refcount_bytes: int
    extended: bool = False
    zstd: bool = False


def inspect(path: Path, *, name: str | None = None) -> Qcow2:
    """Check that a file is a standalone qcow2 image, and return its sizes.

    *name* is used in messages (default: the path). Raises HostileImage otherwise; OSError if the
    file cannot be read.
    """
    with path.open("rb") as file:
        return inspect_file(file, size=os.fstat(file.fileno()).st_size, name=name or str(path))


def inspect_file(file: BinaryIO, *, size: int, name: str) -> Qcow2:
    """Check the qcow2 image in an open file of *size* bytes; see inspect()."""

    def refuse(why: str, hint: str | None = None) -> HostileImage:
        return HostileImage(f"{name} cannot be used: {why}", hint=hint)

    file.seek(0)
    head = file.read(_V2.size + _V3.size + 8)
    if head[:4] != MAGIC:
        raise refuse("it is not a qcow2 image")
    if len(head) < _V2.size:
        raise refuse("the file ends inside the qcow2 header")
    (
        _, version, backing, backing_length, cluster_bits, virtual_size, encryption, l1_entries,
        l1_offset, refcount_offset, refcount_clusters, snapshots, snapshots_offset,
    ) = _V2.unpack_from(head)  # fmt: skip
    if version not in (2, 3):
        raise refuse(f"unsupported qcow version {version}")
    if backing or backing_length:
        raise refuse(
            "it names a backing file, which QEMU would open on this host",
            "flatten it on a host that trusts it: qemu-img convert -O qcow2 FILE NEW.qcow2",
        )
    if encryption:
        raise refuse("it is encrypted")
    if not 9 <= cluster_bits <= 21:
        raise refuse(f"cluster size 2^{cluster_bits} bytes is out of range")
    if not 0 < virtual_size <= MAX_DISK:
        raise refuse(f"disk size {virtual_size} bytes is out of range")
    cluster = 1 << cluster_bits
    header_length, features = _V2.size, 0
    if version == 3:
        header_length, features = _check_v3(head, cluster, size, refuse)
    _check_extensions(file, header_length, min(cluster, size), refuse)
    tables = (
        ("L1 table", l1_offset, l1_entries * 8, _MAX_L1_BYTES),
        ("refcount table", refcount_offset, refcount_clusters * cluster, _MAX_REFCOUNT_BYTES),
    )
    for what, offset, length, most in tables:
        if not length or length > max(most, cluster) or offset % cluster or offset < cluster:
            raise refuse(f"its {what} is invalid")
        if offset + length > size:
            raise refuse(f"its {what} lies beyond the end of the file", "download or copy it again")
    # An L2 table fills one cluster, with entries of 8 bytes, or 16 if extended.
    extended = bool(features & _EXTENDED_L2)
    covered = l1_entries * (cluster // (16 if extended else 8)) * cluster
    if covered < virtual_size:
        raise refuse("its L1 table is too short for its disk")
    if extended and cluster_bits < 14:
        raise refuse("its clusters are too small for subclusters")
    if snapshots and (
        snapshots > _MAX_SNAPSHOTS
        or not cluster <= snapshots_offset < size
        or snapshots_offset % cluster
        # Each snapshot has at least 40 bytes.
        or snapshots_offset + snapshots * 40 > size
    ):
        raise refuse("its snapshot table is invalid")
    return Qcow2(
        version=version,
        virtual_size=virtual_size,
        cluster_size=cluster,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
        refcount_offset=refcount_offset,
        refcount_bytes=refcount_clusters * cluster,
        extended=extended,
        zstd=bool(features & _COMPRESSION),
    )


def _check_v3(head: bytes, cluster: int, size: int, refuse: _Refuse) -> tuple[int, int]:
    """Check version 3's additions to the header; return its length in bytes, and the features."""
    if len(head) < _V2.size + _V3.size:
        raise refuse("the file ends inside the qcow2 header")
    incompatible, _compatible, _autoclear, refcount_order, length = _V3.unpack_from(head, _V2.size)
    if incompatible & _EXTERNAL_DATA:
        raise refuse("it uses an external data file, which QEMU would open on this host")
    if incompatible & _CORRUPT:
        raise refuse("it is marked as corrupt", "download or copy it again")
    if incompatible & ~_KNOWN:
        raise refuse(f"it needs unknown features ({incompatible & ~_KNOWN:#x})")
    if refcount_order > 6:
        raise refuse(f"refcount order {refcount_order} is out of range")
    if length < _V2.size + _V3.size or length % 8 or length > min(cluster, size):
        raise refuse(f"invalid header length of {length} bytes")
    # Only headers longer than 104 bytes have the compression type (0 deflate, 1 zstd).
    compression = head[104] if length > 104 and len(head) > 104 else 0
    if compression not in (0, 1) or bool(compression) != bool(incompatible & _COMPRESSION):
        raise refuse(f"unsupported compression type {compression}")
    return int(length), int(incompatible)


def _check_extensions(file: BinaryIO, start: int, end: int, refuse: _Refuse) -> None:
    """Check the header extensions, between the header and the end of the first cluster."""
    while start + _EXTENSION.size <= end:
        file.seek(start)
        packed = file.read(_EXTENSION.size)
        if len(packed) < _EXTENSION.size:
            raise refuse("the file ends inside the qcow2 header")
        kind, length = _EXTENSION.unpack(packed)
        if kind == 0:
            return
        if kind == _EXT_DATA_FILE:
            raise refuse("it names an external data file, which QEMU would open on this host")
        if kind == _EXT_LUKS:
            raise refuse("it is encrypted")
        start += _EXTENSION.size + (length + 7) // 8 * 8
        if start > end:
            raise refuse("a header extension lies beyond the header")
