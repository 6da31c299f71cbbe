"""The disks of a machine: list, attach, grow and detach them, live where the machine runs.

Source: libvirt-domain.html, virDomainAttachDeviceFlags, virDomainBlockResize,
virDomainGetBlockInfo.
"""

from __future__ import annotations

import os
import string
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import libvirt
from lxml import etree

from armvm.base.errors import Conflict, MissingCapability, PermissionDenied
from armvm.base.poll import until
from armvm.host.connection import Connection, Domain, errors, is_code, is_local, uri_of
from armvm.host.domain.instance import inactive_xml
from armvm.host.domain.shared_directories import has_free_port
from armvm.host.xml import at, parse, select, to_text

#: Names of the disks that every machine has, or an installer's.
ROOT, SEED, CDROM = "root", "seed", "cdrom"
#: Targets of further disks. vdb is the seed's, also where there is none.
_TARGETS = [f"vd{letter}" for letter in string.ascii_lowercase[2:]]
#: Seconds for a guest to release a disk, and between two looks.
_DETACH_PATIENCE, _POLL = 30.0, 0.5


@dataclass(frozen=True, kw_only=True)
class DiskSpec:
    """A disk beside the root disk: the guest sees it as ``/dev/disk/by-id/virtio-NAME``."""

    name: str
    file: str
    format: str


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk in a machine's definition or in its running QEMU."""

    name: str
    target: str
    file: str | None
    format: str
    read_only: bool

    @property
    def essential(self) -> bool:
        """Whether the machine cannot work without it."""
        return self.name in (ROOT, SEED)


def add_elements(domain: etree._Element, disks: tuple[DiskSpec, ...]) -> None:
    """Add further disks to a domain element without any."""
    last = select(domain, "devices/disk")[-1]
    for spec, target in zip(reversed(disks), reversed(_TARGETS[: len(disks)]), strict=True):
        last.addnext(_element(spec, target))


def add_cdrom(domain: etree._Element, file: str) -> None:
    """Add a CD-ROM drive with an ISO, which the firmware tries if the root disk does not boot.

    The drive is on a SCSI bus: libvirt rejects CD-ROM drives on virtio-blk.
    """
    cdrom = etree.Element("disk", type="file", device="cdrom")
    etree.SubElement(cdrom, "driver", name="qemu", type="raw")
    etree.SubElement(cdrom, "source", file=file)
    etree.SubElement(cdrom, "target", dev="sda", bus="scsi")
    etree.SubElement(cdrom, "readonly")
    etree.SubElement(cdrom, "boot", order="2")
    last = select(domain, "devices/disk")[-1]
    last.addnext(cdrom)
    cdrom.addnext(etree.Element("controller", type="scsi", model="virtio-scsi"))


def disks(domain: Domain, *, live: bool = False) -> list[Disk]:
    """Return a machine's disks, from its definition or as it runs."""
    with errors(f"reading {domain.name()}"):
        document = parse(domain.XMLDesc(0) if live else inactive_xml(domain))
    found = []
    for number, one in enumerate(select(document, "devices/disk")):
        source, driver = one.find("source"), one.find("driver")
        target = at(one, "target").get("dev", "")
        found.append(
            Disk(
                name=_name(one, number, target),
                target=target,
                file=None
                if source is None
                else next((str(source.get(key)) for key in _SOURCES if source.get(key)), None),
                format="raw" if driver is None else driver.get("type", "raw"),
                read_only=one.find("readonly") is not None,
            )
        )
    return found


#: The attributes of ``<source>`` that locate a disk.
_SOURCES = ("file", "dev", "volume", "name")


def _name(disk: etree._Element, number: int, target: str) -> str:
    """Return the name that users give a disk: its serial number, or else its target."""
    if number == 0:
        return ROOT
    if disk.get("device") == "cdrom":
        return CDROM if target == "sda" else target
    if number == 1 and disk.find("readonly") is not None:
        return SEED
    serial = (disk.findtext("serial") or "").strip()
    return serial if serial.isprintable() and serial not in ("", ROOT, SEED, CDROM) else target


def plug(domain: Domain, specs: tuple[DiskSpec, ...]) -> None:
    """Attach disks to a running machine whose definition has them already."""
    for spec, target in zip(specs, _TARGETS, strict=False):
        with errors(f"attaching {spec.file} to {domain.name()}"), _explained(spec.file):
            domain.attachDeviceFlags(
                to_text(_element(spec, target)), libvirt.VIR_DOMAIN_AFFECT_LIVE
            )


def attach(domain: Domain, spec: DiskSpec, *, running: bool) -> str:
    """Attach a disk for good, at once if the machine runs; return its target.

    Raises MissingCapability if there is no free PCIe port, Conflict if QEMU cannot lock the file,
    PermissionDenied, DomainError.
    """
    name = domain.name()
    used = {one.target for one in disks(domain)}
    if running:
        used |= {one.target for one in disks(domain, live=True)}
        if not has_free_port(domain):
            raise MissingCapability(
                f"{name} has no free PCIe port for another disk while it runs",
                hint=f"stop it, then add the disk: armvm stop {name}",
            )
    target = next((one for one in _TARGETS if one not in used), None)
    if target is None:
        raise MissingCapability(f"{name} has too many disks")
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    if running:
        flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
    with errors(f"attaching {spec.file} to {name}"), _explained(spec.file):
        domain.attachDeviceFlags(to_text(_element(spec, target)), flags)
    return target


def detach(domain: Domain, disk: Disk) -> bool:
    """Detach a disk for good; return whether it is gone already.

    If the guest does not release it, it stays until the machine is off.
    """
    name = domain.name()
    for live, flag in (
        (False, libvirt.VIR_DOMAIN_AFFECT_CONFIG),
        (True, libvirt.VIR_DOMAIN_AFFECT_LIVE),
    ):
        # The order matters: without it in the definition, no machine that starts now gets it.
        if not _has(domain, disk, live=live):
            continue
        document = parse(domain.XMLDesc(0) if live else inactive_xml(domain))
        element = select(document, f"devices/disk[target/@dev='{disk.target}']")[0]
        with errors(f"detaching {disk.name} from {name}"):
            try:
                domain.detachDeviceFlags(to_text(element), flag)
            except libvirt.libvirtError:
                if live:  # the definition is changed: it goes with the next stop
                    return False
                raise
    return bool(
        until(lambda: not _has(domain, disk, live=True), timeout=_DETACH_PATIENCE, interval=_POLL)
    )


def _has(domain: Domain, disk: Disk, *, live: bool) -> bool:
    return any(
        one.target == disk.target and one.file == disk.file for one in disks(domain, live=live)
    )


def grow(domain: Domain, disk: Disk, size: int) -> None:
    """Grow a disk of a running machine to *size* bytes; the guest is notified at once."""
    with errors(f"growing {disk.name} of {domain.name()}"):
        domain.blockResize(disk.target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def sizes(domain: Domain, disk: Disk) -> tuple[int, int] | None:
    """Return a disk's size and the bytes that it takes on the host; None if they are unknown."""
    try:
        capacity, allocated, _physical = domain.blockInfo(disk.file or disk.target)
    except libvirt.libvirtError:
        return None
    return int(capacity), int(allocated)


def user_of(connection: Connection, path: str) -> str | None:
    """Return the name of a domain whose definition or QEMU refers to the file *path*, or None."""
    return users_of(connection, [path]).get(path)


def users_of(
    connection: Connection, paths: Collection[str], *, besides: Collection[str] = ()
) -> dict[str, str]:
    """Return the files of *paths* that a domain's definition or QEMU refers to, each with a name
    of such a domain. The domains *besides* do not count.
    """
    local = is_local(uri_of(connection))
    found: dict[str, str] = {}
    with errors("reading the machines"):
        for domain in connection.listAllDomains(0) if paths else []:
            try:
                name = str(domain.name())
                if name in besides:
                    continue
                texts = [inactive_xml(domain)] if domain.isPersistent() else []
                texts += [domain.XMLDesc(0)] if domain.isActive() else []
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):  # deleted in between
                    continue
                raise
            named = set[str]().union(*(_named_files(parse(text)) for text in texts))
            if local:  # also by another name
                named |= set(map(os.path.realpath, named))
            for path in paths:
                if path in named or (local and os.path.realpath(path) in named):
                    found.setdefault(path, name)
    return found


def _named_files(document: etree._Element) -> set[str]:
    """Return the absolute paths in a domain's XML."""
    return {
        str(value)
        for one in document.iter(etree.Element)
        for value in ((one.text or "").strip(), *one.values())
        if str(value).startswith("/")
    }


@contextmanager
def _explained(file: str) -> Iterator[None]:
    """Translate what QEMU and libvirt say about a file that they cannot use."""
    try:
        yield
    except libvirt.libvirtError as error:
        text = str(error.get_error_message())
        if "lock" in text and ("Failed to get" in text or "acquire" in text):
            raise Conflict(
                f"{file} is in use by another QEMU process", detail=text, hint="stop that one first"
            ) from error
        if "Permission denied" in text:
            raise PermissionDenied(
                f"permission denied: QEMU cannot open {file}",
                detail=text,
                hint="move it to a directory that libvirt's QEMU may enter, such as the pool's",
            ) from error
        raise


def _element(spec: DiskSpec, target: str) -> etree._Element:
    disk = etree.Element("disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type=spec.format, discard="unmap")
    etree.SubElement(disk, "source", file=spec.file)
    # QEMU then opens no backing file, whatever the file's header says later.
    etree.SubElement(disk, "backingStore")
    etree.SubElement(disk, "target", dev=target, bus="virtio")
    etree.SubElement(disk, "serial").text = spec.name
    return disk
