"""Host directories shared with a machine by virtiofs: one device each, and its record.

Source: libvirt's formatdomain.html, "Filesystems". virtiofsd reads and writes the machine's
memory, so the memory must be shared with it: a machine gets shared memory at its next start. From
then on, directories can be added and removed while it runs. (9p could not do that, and Debian's and
Ubuntu's cloud kernels lack it.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import libvirt
from lxml import etree

from armvm.base.errors import MissingCapability
from armvm.base.paths import config_home
from armvm.base.poll import until
from armvm.host.connection import (
    Connection,
    Domain,
    errors,
    is_code,
    is_local,
    is_session,
    uri_of,
)
from armvm.host.domain.idmap import IdMap
from armvm.host.domain.instance import inactive_xml
from armvm.host.xml import at, parse, select, to_text

#: The metadata that records each tag's guest directory: libvirt does not store it.
NAMESPACE, PREFIX = "urn:armvm:shares:1", "armvm-shares"
#: How many PCIe ports for further devices a machine gets with its first share.
SPARE_PORTS = 4
#: Seconds for a guest to release a device.
DETACH_PATIENCE = 60.0


#: Where programs like virtiofsd install their descriptions (QEMU's docs/interop/vhost-user.json).
#: libvirt searches there, and in a user's session also in the user's own directory.
DESCRIPTIONS = (Path("/etc/qemu/vhost-user"), Path("/usr/share/qemu/vhost-user"))
_OWN_DESCRIPTIONS = "qemu/vhost-user"
#: The first libvirt that supports virtiofs in session mode.
_IN_SESSIONS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Share:
    """A host directory, its *tag* in the guest, and its guest directory."""

    source: str
    target: str
    tag: str
    read_only: bool = False
    #: The owner of its files; None: libvirt's default. It is not read back.
    ids: IdMap | None = None


def check(connection: Connection, descriptions: Sequence[Path] = DESCRIPTIONS) -> str:
    """Return the program that shares directories on a host, or raise MissingCapability.

    Changes nothing. Programs of a remote host cannot be checked.
    """
    with errors("reading libvirt's version"):
        uri, version = uri_of(connection), connection.getLibVersion()
    if is_session(uri) and version < _IN_SESSIONS:
        raise _impossible(
            "libvirt supports virtiofs in session mode since 10.0; "
            f"this is {version // 1_000_000}.{version // 1000 % 1000}"
        )
    if not is_local(uri):
        return "not checked on a remote host"
    own = (config_home() / _OWN_DESCRIPTIONS,) if is_session(uri) else ()
    found = _virtiofsd([*own, *descriptions])
    if found is None:
        raise _impossible("virtiofsd not found")
    return found


def _virtiofsd(descriptions: Sequence[Path]) -> str | None:
    """Return the program named by a description on this host."""
    for path in (path for one in descriptions for path in sorted(one.glob("*.json"))):
        try:
            described = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # an empty file disables one of the same name
        if isinstance(described, dict) and described.get("type") == "fs":
            program = str(described.get("binary"))
            if os.access(program, os.X_OK):
                return program
    return None


def shares(domain: Domain) -> list[Share]:
    """Return a machine's shares from its definition."""
    document = parse(inactive_xml(domain))
    sources = {
        at(one, "target").get("dir", ""): at(one, "source").get("dir", "")
        for one in _devices(document)
    }
    return [
        Share(
            source=sources[one.get("tag", "")],
            target=one.get("target", ""),
            tag=one.get("tag", ""),
            read_only=one.get("read-only") == "yes",
        )
        for one in document.iterfind(f"metadata/{{{NAMESPACE}}}shares/{{{NAMESPACE}}}share")
        if one.get("tag", "") in sources
    ]


def tags(domain: Domain, *, live: bool) -> set[str]:
    """Return the tags of all of a machine's file systems, from its definition or as it runs."""
    with errors(f"reading {domain.name()}"):
        document = parse(domain.XMLDesc(0) if live else inactive_xml(domain))
    found = select(document, "devices/filesystem/target")
    return {target.get("dir", "") for target in found}


def has_shared_memory(domain: Domain) -> bool:
    """Return whether a running machine's memory can be shared with virtiofsd."""
    with errors(f"reading {domain.name()}"):
        document = parse(domain.XMLDesc(0))
    # A clone's first run uses memory that is not in its definition.
    arguments = select(document, "*[local-name()='commandline']/*[local-name()='arg']")
    if any("memory-backend" in argument.get("value", "") for argument in arguments):
        return False
    access = document.find("memoryBacking/access")
    return access is not None and access.get("mode") == "shared"


def has_free_port(domain: Domain) -> bool:
    """Return whether a running machine has a PCI Express port for one more device."""
    with errors(f"reading {domain.name()}"):
        return free_ports(parse(domain.XMLDesc(0))) > 0


def attach(domain: Domain, share: Share) -> None:
    """Attach a share to a running machine permanently. Raises MissingCapability, DomainError."""
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    with errors(f"attaching {share.source} to {domain.name()}"), _possible():
        domain.attachDeviceFlags(to_text(_element(share)), flags)
    _remember(domain, [*shares(domain), share])


def define(connection: Connection, domain: Domain, share: Share) -> str:
    """Add a share to a machine's definition for its next start; return the previous definition.

    Raises MissingCapability, DomainError.
    """
    before = inactive_xml(domain)
    document = parse(before)
    backing = document.find("memoryBacking")
    if backing is None:
        backing = etree.Element("memoryBacking")
        anchor = document.find("currentMemory")
        (anchor if anchor is not None else at(document, "memory")).addnext(backing)
    if backing.find("hugepages") is None:
        _only(backing, "source").set("type", "memfd")
    _only(backing, "access").set("mode", "shared")
    devices = at(document, "devices")
    devices.append(_element(share))
    for _ in range(1 + SPARE_PORTS - free_ports(document)):
        etree.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    restore(connection, to_text(document))
    _remember(domain, [*shares(domain), share])
    return before


def restore(connection: Connection, xml: str) -> None:
    """Define a machine from an earlier definition."""
    with errors("defining the machine"), _possible():
        connection.defineXML(xml)


def detach(domain: Domain, share: Share) -> bool:
    """Detach a share from a machine permanently; return whether it is gone already.

    If the guest does not release it, it stays until the machine is off.
    """
    name = domain.name()
    device = to_text(_element(share))
    with errors(f"detaching {share.source} from {name}"):
        domain.detachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    _remember(domain, [one for one in shares(domain) if one.tag != share.tag])
    if not domain.isActive() or share.tag not in tags(domain, live=True):
        return True
    try:
        domain.detachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError:
        return False
    gone = until(
        lambda: share.tag not in tags(domain, live=True), timeout=DETACH_PATIENCE, interval=0.5
    )
    return bool(gone)


@contextmanager
def _possible() -> Iterator[None]:
    """Translate libvirt's errors for unsupported features to MissingCapability."""
    try:
        yield
    except libvirt.libvirtError as error:
        unsupported = (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_ERR_OPERATION_UNSUPPORTED)
        if not is_code(error, *unsupported) and "virtiofs" not in str(error):
            raise
        raise _impossible(str(error)) from error


def _impossible(detail: str) -> MissingCapability:
    return MissingCapability(
        "this host cannot share directories with a machine",
        detail=detail,
        hint="install virtiofsd (apt-get install virtiofsd, or: dnf install virtiofsd); session "
        "mode also needs libvirt 10; to copy instead: armvm cp -r",
    )


def _devices(document: etree._Element) -> list[etree._Element]:
    return select(document, "devices/filesystem[driver/@type='virtiofs'][source/@dir][target]")


def free_ports(document: etree._Element) -> int:
    """Return how many root ports are unused: a port's index is its bus."""
    ports = select(document, "devices/controller[@model='pcie-root-port']")
    used = {
        int(address.get("bus", "0"), 16)
        for address in select(document, "devices/*/address[@type='pci']")
    }
    return sum(int(port.get("index", "0")) not in used for port in ports)


def _element(share: Share) -> etree._Element:
    device = etree.Element("filesystem", type="mount", accessmode="passthrough")
    etree.SubElement(device, "driver", type="virtiofs")
    etree.SubElement(device, "source", dir=share.source)
    etree.SubElement(device, "target", dir=share.tag)
    if share.ids is not None:
        ids = etree.SubElement(device, "idmap")
        for kind, ranges in (("uid", share.ids.uids), ("gid", share.ids.gids)):
            for one in ranges:
                values = {"start": one.start, "target": one.target, "count": one.count}
                etree.SubElement(ids, kind, {key: str(value) for key, value in values.items()})
    return device


def _only(parent: etree._Element, tag: str) -> etree._Element:
    found = parent.find(tag)
    return etree.SubElement(parent, tag) if found is None else found


def _remember(domain: Domain, known: list[Share]) -> None:
    """Record each share's guest directory, in metadata with its own namespace."""
    root = etree.Element("shares")
    for one in known:
        share = etree.SubElement(root, "share", tag=one.tag, target=one.target)
        share.set("read-only", "yes" if one.read_only else "no")
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    with errors(f"writing the metadata of {domain.name()}"):
        if domain.isActive():
            flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
        text = etree.tostring(root, encoding="unicode") if known else None
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        domain.setMetadata(kind, text, PREFIX, NAMESPACE, flags)
