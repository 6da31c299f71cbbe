"""A machine's memory in libvirt's own save image; each clone is restored from a copy of it.

libvirt restores a save image under the name and UUID it was saved with, in every documented
way. So a clone's copy gets another description: the image begins with a header and the domain
XML, and these are replaced. The format is internal to libvirt: armvm rejects anything unexpected,
and the machine boots from its image instead.

Source: libvirt's src/qemu/qemu_saveimage.h. Little endian: 16 bytes ``LibvirtQemudSave``, then
words of 32 bits: version (2), length of the data after the header, was running, format (0 raw,
1 to 4 programs that compress, 5 zstd, 6 sparse since libvirt 11.2), offset of the cookie in the
data, 14 unused. The data is the XML and a NUL, the cookie and a NUL, padding; QEMU's stream
follows.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import PurePosixPath
from typing import Any

import libvirt
from lxml import etree

from armvm.base.errors import DomainError, MissingCapability
from armvm.host.connection import Connection, Domain, Pool, Volume, errors
from armvm.host.storage import pools, transfer, volumes
from armvm.host.xml import at

VOLUMES = ("memory",)
_HEADER = struct.Struct("<16sIIIII14I")
_MAGIC = b"LibvirtQemudSave"
_VERSION = 2
#: Formats in which QEMU's stream is one run of bytes after the data.
_FORMATS = range(6)
#: The longest plausible data: real ones have some 20 KiB.
_MAX_DATA = 1 << 22


def why_not(*, local: bool) -> str | None:
    """Return why this route cannot be used on a host: it always can."""
    del local
    return None


def prepare(domain: etree._Element, memory_path: str) -> None:
    """Let the guest return unused memory, so that it is not saved."""
    del memory_path
    at(domain, "devices/memballoon").set("freePageReporting", "on")


def save(connection: Connection, pool: Pool, domain: Domain) -> str:
    """Save a suspended golden to its memory volume; return the digest of the image's head."""
    name = volumes.volume_names(domain.name())["memory"]
    path = str(PurePosixPath(pools.pool_path(pool)) / name)
    with errors(f"saving {domain.name()}"):
        domain.saveFlags(path, None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        pools.refresh(pool)
    return _digest(connection, volumes.need_volume(pool, name))


def load(connection: Connection, pool: Pool, golden: str, element: etree._Element) -> Domain:
    """Restore a clone from a copy of the golden's save image that describes the clone."""
    name = element.findtext("name") or ""
    copy_name = volumes.volume_names(name)["memory"]
    source = volumes.need_volume(pool, volumes.volume_names(golden)["memory"])
    head = describe(_head(connection, source), etree.tostring(element))
    copy = volumes.copy_volume(pool, copy_name, source)
    transfer.overwrite(connection, copy, head)
    with errors(f"restoring {name} from its golden"):
        connection.restoreFlags(copy.path(), None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        clone = connection.lookupByName(name)
    volumes.delete_volume(copy)  # not needed any more
    return clone


def check(
    connection: Connection, pool: Pool, golden: str, element: etree._Element, digest: str
) -> str | None:
    """Return what is wrong with a golden's save image; None if it is intact."""
    del element
    source = volumes.need_volume(pool, volumes.volume_names(golden)["memory"])
    if _digest(connection, source) != digest:
        return f"the save image of {golden} was changed after it was written"
    return None


def describe(head: bytes, xml: bytes) -> bytes:
    """Return the head of a save image with the domain XML replaced.

    *head* is the header and the data. Raises MissingCapability for an unsupported version or
    format, DomainError if the new XML does not fit into the space of the old one.
    """
    fields = _fields(head)
    data = head[_HEADER.size :]
    offset = fields[5]
    # Without a cookie the offset is 0 and the rest is padding.
    cookie = data[offset:].split(b"\0", 1)[0] + b"\0" if offset else b""
    new = xml + b"\0" + cookie
    if len(new) > len(data):
        raise DomainError(f"the definition ({len(new)} bytes) does not fit into the save image")
    changed = list(fields)
    changed[5] = len(xml) + 1 if offset else 0
    return _HEADER.pack(*changed) + new.ljust(len(data), b"\0")


def _fields(head: bytes) -> tuple[Any, ...]:
    if len(head) < _HEADER.size:
        raise DomainError("truncated save image")
    fields = _HEADER.unpack_from(head)
    magic, version, length, _running, kind, offset = fields[:6]
    if magic != _MAGIC or version != _VERSION or kind not in _FORMATS:
        raise MissingCapability(f"unsupported save image: version {version}, format {kind}")
    if not offset < length <= _MAX_DATA:
        raise DomainError("invalid header in save image")
    return fields


def _head(connection: Connection, volume: Volume) -> bytes:
    """Return a save image's header and data."""
    length = _fields(transfer.read(connection, volume, length=_HEADER.size))[2]
    head = transfer.read(connection, volume, length=_HEADER.size + length)
    if len(head) < _HEADER.size + length:
        raise DomainError("truncated save image")
    return head


def _digest(connection: Connection, volume: Volume) -> str:
    head = _head(connection, volume)
    size = volumes.physical_size(volume)
    return "sha256:" + hashlib.sha256(head + str(size).encode()).hexdigest()
