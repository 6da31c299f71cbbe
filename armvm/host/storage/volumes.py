"""The volumes in a storage pool: bases, overlays, seeds. Bytes travel through libvirt.

Volumes of a machine called NAME: ``NAME.qcow2`` (overlay), ``NAME.seed.iso``, and
``NAME.serial.log`` with its rotated files, which virtlogd writes. A golden also has its memory in
``NAME.memory``, and its devices' state in ``NAME.state``; a clone has ``NAME.nvram`` for its UEFI
variables; a fast machine ``NAME.kernel`` and ``NAME.initrd``; one with snapshots a
``NAME.snap-SNAPSHOT.qcow2`` for each; further disks are ``NAME.disk-DISK.qcow2`` or ``.raw``; an
installer's medium is ``NAME.cdrom.iso``, an Ignition configuration ``NAME.ignition``; one that an
image is made of has ``NAME.image.qcow2``; while many bytes go into or out of it,
``NAME.transfer-SERIAL``. A base is named after its image's digest:
``base-sha256-<hex>.qcow2``.
"""

from __future__ import annotations

import io

import libvirt
from lxml import etree

from armvm.base.errors import StorageError
from armvm.host.connection import Connection, Pool, Volume, errors, is_code
from armvm.host.storage import pools, transfer
from armvm.host.xml import at, parse, to_text


def volume_names(machine: str) -> dict[str, str]:
    """Return a machine's volume names by their role."""
    return {
        "overlay": f"{machine}.qcow2",
        "seed": f"{machine}.seed.iso",
        "serial_log": f"{machine}.serial.log",
        "memory": f"{machine}.memory",
        "state": f"{machine}.state",
        "nvram": f"{machine}.nvram",
        "kernel": f"{machine}.kernel",
        "initrd": f"{machine}.initrd",
        "image": f"{machine}.image.qcow2",
        "cdrom": f"{machine}.cdrom.iso",
        "ignition": f"{machine}.ignition",
    }


def snapshot_name(machine: str, snapshot: str) -> str:
    """Return the volume name of a machine's snapshot."""
    return f"{machine}.snap-{snapshot}.qcow2"


def snapshot_of(volume: str) -> tuple[str, str] | None:
    """Return machine and name of the snapshot in a volume's name; None if it is not one."""
    machine, dot, snapshot = volume.removesuffix(".qcow2").partition(".snap-")
    return (machine, snapshot) if dot else None


def transfer_name(machine: str, serial: str) -> str:
    """Return the volume name of a disk that carries bytes into or out of a machine."""
    return f"{machine}.transfer-{serial}"


#: Suffix at the start of a further disk's name, after the machine's.
ADDED = ".disk-"


def disk_name(machine: str, disk: str, kind: str) -> str:
    """Return the volume name of a machine's further disk; *kind* is its format."""
    return f"{machine}{ADDED}{disk}.{kind}"


def is_disk_of(machine: str, volume: str) -> bool:
    """Return whether a volume is a further disk that armvm made for a machine, by its name."""
    return volume.startswith(machine + ADDED)


def find_volume(pool: Pool, name: str) -> Volume | None:
    """Return a volume, or None. libvirt's list dates from the pool's last refresh."""
    with errors(f"looking for the volume {name}"):
        try:
            return pool.storageVolLookupByName(name)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
                return None
            raise


def volume_at(connection: Connection, path: str) -> Volume | None:
    """Return the volume with a path on the connected host; None if no pool has it."""
    with errors(f"looking for the volume {path}"):
        try:
            return connection.storageVolLookupByPath(path)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
                return None
            raise


def need_volume(pool: Pool, name: str) -> Volume:
    """Return a volume. Raises StorageError if it does not exist."""
    volume = find_volume(pool, name)
    if volume is None:
        raise StorageError(f"volume {name} not found in the pool {pool.name()}")
    return volume


def create_overlay(
    pool: Pool, name: str, base: Volume, capacity: int, *, cluster: int | None = None
) -> Volume:
    """Create a qcow2 volume of *capacity* bytes that stores only the difference from *base*.

    *cluster* is the unit in which it grows, in bytes; QEMU's default is 64 KiB. (libvirt
    before 7.4 supports no other.)
    """
    with errors(f"creating the volume {name}"):
        document = _volume(name, capacity, "qcow2", mode="0600")
        if cluster is not None:
            size = etree.SubElement(at(document, "target"), "clusterSize", unit="bytes")
            size.text = str(cluster)
        backing = etree.SubElement(document, "backingStore")
        etree.SubElement(backing, "path").text = base.path()
        etree.SubElement(backing, "format", type="qcow2")
        return pool.createXML(to_text(document), 0)


def write_volume(
    connection: Connection, pool: Pool, name: str, data: bytes, *, size: int = 0
) -> Volume:
    """Create a private raw volume of *data*, and a hole up to *size* bytes."""
    with errors(f"creating the volume {name}"):
        document = _volume(name, max(size, len(data)), "raw", mode="0600", allocation=len(data))
        volume = pool.createXML(to_text(document), 0)
    try:
        transfer.upload(connection, volume, io.BytesIO(data).read)
    except BaseException:
        delete_volume(volume)
        raise
    return volume


def copy_volume(pool: Pool, name: str, source: Volume, kind: str = "raw") -> Volume:
    """Create a volume with another's contents; the host copies it, and holes stay holes.

    A qcow2 copy lacks a backing file: libvirt (9.0) ignores a requested backing store.
    """
    with errors(f"copying the volume {source.name()}"):
        document = _volume(name, capacity(source), kind, mode="0600")
        return pool.createXMLFrom(to_text(document), source, 0)


def create_hole(pool: Pool, name: str, size: int, owner: tuple[int, int] | None = None) -> Volume:
    """Create a raw volume of *size* bytes that is one hole.

    *owner* is the user and group, for a volume that QEMU opens without libvirt's knowledge.
    """
    with errors(f"creating the volume {name}"):
        document = _volume(name, size, "raw", mode="0600", allocation=0)
        if owner is not None:
            permissions = at(document, "target/permissions")
            for tag, number in zip(("owner", "group"), owner, strict=True):
                etree.SubElement(permissions, tag).text = str(number)
        return pool.createXML(to_text(document), 0)


def create_disk(pool: Pool, name: str, size: int, kind: str) -> Volume:
    """Create an empty disk of *size* bytes in the format *kind*; its file is sparse."""
    with errors(f"creating the volume {name}"):
        return pool.createXML(to_text(_volume(name, size, kind, mode="0600", allocation=0)), 0)


def create_empty(pool: Pool, name: str) -> Volume:
    """Create an empty raw volume, for an upload to fill."""
    with errors(f"creating the volume {name}"):
        return pool.createXML(to_text(_volume(name, 0, "raw", mode="0644")), 0)


def physical_size(volume: Volume) -> int:
    """Return the size of a volume's file in bytes."""
    with errors(f"reading the volume {volume.name()}"):
        return int(volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2])


def capacity(volume: Volume) -> int:
    """Return a volume's size in bytes, as a guest or QEMU sees it."""
    with errors(f"reading the volume {volume.name()}"):
        return int(volume.info()[1])


def allocation(volume: Volume) -> int:
    """Return the bytes that a volume takes on the host's disk."""
    with errors(f"reading the volume {volume.name()}"):
        return int(volume.info()[2])


def modified(volume: Volume) -> float | None:
    """Return when a volume was last written to, in seconds since 1970; None if libvirt does not
    know.
    """
    with errors(f"reading the volume {volume.name()}"):
        found = parse(volume.XMLDesc(0)).findtext("target/timestamps/mtime")
    return float(found) if found else None


def delete_volume(volume: Volume) -> None:
    """Remove a volume; does nothing if it does not exist."""
    with errors("removing a volume"):
        try:
            volume.delete(0)
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
                raise


def is_volume_of(machine: str, name: str) -> bool:
    """Return whether a volume is a machine's, by its name."""
    names = volume_names(machine)
    log = names["serial_log"]
    rotated = name.startswith(f"{log}.") and name[len(log) + 1 :].isdigit()
    several = name.startswith((f"{machine}.snap-", transfer_name(machine, "")))
    return name in names.values() or rotated or several or is_disk_of(machine, name)


def machine_volumes(pool: Pool, machine: str) -> dict[str, Volume]:
    """Return all volumes of a machine by name suffix, including rotated serial logs and
    snapshots.
    """
    found = {}
    with errors("reading the storage pool"):
        pools.refresh(pool)
        for volume in pool.listAllVolumes(0):
            name = volume.name()
            if is_volume_of(machine, name):
                found[name[len(machine) :]] = volume
    return found


def _volume(
    name: str, capacity: int, kind: str, *, mode: str, allocation: int | None = None
) -> etree._Element:
    document = etree.Element("volume")
    etree.SubElement(document, "name").text = name
    etree.SubElement(document, "capacity", unit="bytes").text = str(capacity)
    if allocation is not None:  # the rest is a hole
        etree.SubElement(document, "allocation", unit="bytes").text = str(allocation)
    target = etree.SubElement(document, "target")
    etree.SubElement(target, "format", type=kind)
    etree.SubElement(etree.SubElement(target, "permissions"), "mode").text = mode
    return document
