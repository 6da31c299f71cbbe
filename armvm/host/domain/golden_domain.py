"""Goldens as libvirt has them: a domain that is never started, marked in its metadata.

A golden is defined with its root disk read-only: a start by mistake boots nothing and, above
all, changes nothing that clones stand on. Its own metadata element holds what it was made from
and with; the record of the machine it was lies inside it, so that nothing takes a golden for a
machine.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import libvirt
from lxml import etree

from armvm.base.errors import NotFound
from armvm.host.connection import Connection, Domain, errors, is_code
from armvm.host.domain.domain_xml import DomainSpec
from armvm.host.domain.metadata import GOLDEN, Record, from_element, to_element
from armvm.host.memory import route as memory
from armvm.host.xml import at, parse, remove, select
from armvm.settings.names import shown

#: Bytes of the flash that holds the UEFI variables.
FLASH = 64 << 20
NAMESPACE = "urn:armvm:golden:1"
_MACHINE = "{urn:armvm:machine:1}machine"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is remembered of a golden.

    ``shape`` is what a machine must ask for to be made from it, ``ground`` what the host must
    still be.
    """

    created: str
    shape: dict[str, Any]
    ground: dict[str, Any]
    state_digest: str
    record: Record
    route: str = memory.COW


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A golden that was found: its mark, and the definition that clones begin with."""

    name: str
    uuid: str
    mark: Mark
    definition: etree._Element
    overlay: str
    seed: str
    mac: str
    network: str | None


def goldens(connection: Connection) -> list[Golden]:
    """Return all goldens, by name."""
    found = []
    with errors("listing the goldens"):
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT):
            try:
                golden = _read(domain)
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):  # removed in between
                    raise
                continue
            if golden is not None:
                found.append(golden)
    return sorted(found, key=lambda golden: golden.name)


def find_golden(connection: Connection, name: str) -> Golden:
    """Return a golden by name. Raises NotFound."""
    found = None
    with errors(f"looking for {shown(name)}"):
        try:
            found = _read(connection.lookupByName(name))
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                raise
    if found is None:
        raise NotFound(
            f"there is no golden {shown(name)}", hint="'armvm golden list' shows what there is"
        )
    return found


def prepare_definition(domain: Domain) -> etree._Element:
    """Return the definition that turns a running machine into a golden, still without its mark.

    The firmware's path is pinned: clones continue in the middle of it.
    """
    with errors(f"reading {domain.name()}"):
        live = parse(domain.XMLDesc(0))
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        document = parse(domain.XMLDesc(flags))
    document.replace(at(document, "os"), deepcopy(at(live, "os")))
    # A path and the features that would choose one exclude each other.
    for element in select(document, "os/firmware | *[local-name()='commandline']"):
        remove(element)
    metadata = at(document, "metadata")
    for element in metadata.findall(_MACHINE):
        metadata.remove(element)
    disk = at(document, "devices/disk[1]")
    if disk.find("readonly") is None:
        etree.SubElement(disk, "readonly")
    return document


def nvram_size(golden: Golden) -> int | None:
    """Return the bytes of a clone's file for UEFI variables; None where libvirt is to make it.

    QEMU takes no other size than the flash's: 64 MiB (hw/arm/virt.c, VIRT_FLASH, halved).
    """
    nvram = golden.definition.find("os/nvram")
    return FLASH if nvram is not None and nvram.get("format", "raw") == "raw" else None


def set_mark(definition: etree._Element, mark: Mark) -> None:
    """Put a golden's mark into its definition."""
    at(definition, "metadata").append(_to_element(mark))


def definition_of_clone(
    golden: Golden, spec: DomainSpec, record: Record, *, disposable: bool = False
) -> etree._Element:
    """Return the definition that a clone's first run needs: the golden's devices, own names.

    With user networking the MAC address stays the golden's while this run lasts, also through a
    reboot: QEMU has given it the address that the ssh forward leads to, and would give another
    card another one. On a libvirt network the clone has its own: the guest takes it on with its
    identity, and its link is down until then.

    Nothing of a *disposable* one need reach the disk: its flushes are left out, and its UEFI
    variables stay in QEMU's memory. A file for them is written whole at the first instruction.
    """
    document = deepcopy(golden.definition)
    at(document, "name").text = spec.name
    at(document, "uuid").text = spec.uuid
    metadata = at(document, "metadata")
    for element in metadata.findall(GOLDEN):
        metadata.remove(element)
    metadata.append(to_element(record))
    for element in select(
        document, "devices/channel/source | devices/disk[1]/readonly | devices/disk/backingStore"
    ):
        remove(element)
    nvram = document.find("os/nvram")
    if nvram is not None and disposable:
        remove(nvram)
        _without_variables(at(document, "os"))
    elif nvram is not None:
        nvram.text = spec.nvram  # its contents come with the state
    at(document, "devices/disk[1]/source").set("file", spec.overlay)
    at(document, "devices/disk[2]/source").set("file", spec.seed)
    if disposable:
        at(document, "devices/disk[1]/driver").set("cache", "unsafe")
    for log in select(document, "devices/serial/log | devices/console/log"):
        log.set("file", spec.serial_log)
    if spec.network is not None:
        # Nothing leaves it before it has its own identity (see host/network/link.py).
        interface = at(document, "devices/interface")
        at(interface, "mac").set("address", spec.mac)
        source = at(interface, "source")
        source.attrib.clear()
        source.set("network", spec.network)
        for old in interface.findall("link"):
            interface.remove(old)
        etree.SubElement(interface, "link", state="down")
    return document


def _without_variables(system: etree._Element) -> None:
    """Keep a firmware's variables in QEMU's memory: its path is pinned, and nothing chooses one.

    libvirt adds ``<firmware>`` when it defines a golden, and since 11.3 looks for a firmware by
    it that is stateless by itself. There is none for ARM64.
    """
    system.attrib.pop("firmware", "")
    for element in system.findall("firmware"):
        remove(element)
    at(system, "loader").set("stateless", "yes")


def loader_of(domain: Domain) -> str:
    """Return the path of a running machine's firmware."""
    with errors(f"reading {domain.name()}"):
        return parse(domain.XMLDesc(0)).findtext("os/loader") or ""


def _read(domain: Domain) -> Golden | None:
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    document = parse(domain.XMLDesc(flags))
    root = document.find(f"metadata/{GOLDEN}")
    if root is None:
        return None
    try:
        mark = _from_element(root)
    except (ValueError, KeyError, TypeError, RecursionError, LookupError):
        return None
    source = document.find("devices/interface/source")
    return Golden(
        name=domain.name(),
        uuid=domain.UUIDString(),
        mark=mark,
        definition=document,
        overlay=at(document, "devices/disk[1]/source").get("file", ""),
        seed=at(document, "devices/disk[2]/source").get("file", ""),
        mac=at(document, "devices/interface/mac").get("address", ""),
        network=None if source is None else source.get("network"),
    )


def _to_element(mark: Mark) -> etree._Element:
    root = etree.Element(GOLDEN, nsmap={"armvm-golden": NAMESPACE})
    root.set("created", mark.created)
    root.set("state-digest", mark.state_digest)
    root.set("route", mark.route)
    for tag, value in (("shape", mark.shape), ("ground", mark.ground)):
        etree.SubElement(root, f"{{{NAMESPACE}}}{tag}").text = json.dumps(value, sort_keys=True)
    root.append(to_element(mark.record))
    return root


def _from_element(root: etree._Element) -> Mark:
    shape, ground = (
        json.loads(at(root, f"{{{NAMESPACE}}}{tag}").text or "") for tag in ("shape", "ground")
    )
    record = from_element(at(root, _MACHINE))
    if record is None or not isinstance(shape, dict) or not isinstance(ground, dict):
        raise ValueError("not a golden of ours")
    return Mark(
        created=root.get("created", ""),
        shape=shape,
        ground=ground,
        state_digest=root.get("state-digest", ""),
        record=record,
        route=root.get("route", memory.COW),
    )
