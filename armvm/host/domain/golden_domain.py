"""Goldens in libvirt: a domain that is never started, marked in its metadata.

A golden is defined with its root disk read-only: a start by mistake boots nothing and does not
change the disk that clones are based on. Its metadata element describes how it was made, and
contains the record of the original machine, so that a golden is never mistaken for a
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
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import DomainSpec
from armvm.host.domain.firmware import Firmware
from armvm.host.domain.metadata import GOLDEN, Record, from_element, to_element
from armvm.host.memory import route as memory
from armvm.host.network.card import Card, Cards, cards_in, connect
from armvm.host.xml import at, parse, remove, select, to_text
from armvm.settings.names import shown

#: Bytes of the flash for the UEFI variables.
FLASH = 64 << 20
NAMESPACE = "urn:armvm:golden:1"
_MACHINE = "{urn:armvm:machine:1}machine"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The data recorded about a golden.

    ``shape`` lists the settings that a machine must share to be cloned from it, ``ground`` the
    properties that the host must still have. ``imported`` is the digest of the file that the golden
    was imported from, ``signer`` the trusted signer of that file. ``pool`` is the number of ready
    clones to keep.
    """

    created: str
    shape: dict[str, Any]
    ground: dict[str, Any]
    state_digest: str
    record: Record
    route: str = memory.COW
    imported: str | None = None
    signer: str | None = None
    pool: int = 0


@dataclass(frozen=True, kw_only=True)
class Golden(Cards):
    """A golden: its mark, and the definition that clones start from."""

    name: str
    uuid: str
    mark: Mark
    definition: etree._Element
    overlay: str
    seed: str
    cards: tuple[Card, ...]


def goldens(connection: Connection) -> list[Golden]:
    """Return all goldens, by name."""
    found = []
    with errors("listing the goldens"):
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT):
            try:
                golden = _read(domain)
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):  # deleted in between
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
            f"golden {shown(name)} not found", hint="list the goldens: armvm golden list"
        )
    return found


def prepare_definition(domain: Domain) -> etree._Element:
    """Return the definition that turns a running machine into a golden, still without its mark.

    The firmware's path is fixed, because clones resume while that firmware is loaded.
    """
    with errors(f"reading {domain.name()}"):
        live = parse(domain.XMLDesc(0))
    document = definition(domain)
    document.replace(at(document, "os"), deepcopy(at(live, "os")))
    # libvirt rejects a path together with the features that would select one. The kernel is that
    # of the golden's own boot.
    for element in select(document, "os/firmware | os/kernel | os/initrd | os/cmdline"):
        remove(element)
    without_record(document)
    disk = at(document, "devices/disk[1]")
    if disk.find("readonly") is None:
        etree.SubElement(disk, "readonly")
    return document


def definition(domain: Domain) -> etree._Element:
    """Return a domain's definition, as libvirt completed it."""
    with errors(f"reading {domain.name()}"):
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return parse(domain.XMLDesc(flags))


def without_record(document: etree._Element) -> None:
    """Remove the record of a machine and QEMU arguments, which a golden's definition lacks."""
    for element in select(document, "*[local-name()='commandline']"):
        remove(element)
    metadata = at(document, "metadata")
    for element in metadata.findall(_MACHINE):
        metadata.remove(element)


def set_firmware(document: etree._Element, firmware: Firmware, nvram: str) -> None:
    """Make a definition that was not booted one of a golden: its firmware's path is fixed.

    *nvram* is the path for its UEFI variables, which no golden has.
    """
    system = at(document, "os")
    system.attrib.pop("firmware", "")
    for element in select(document, "os/firmware | os/loader | os/nvram"):
        remove(element)
    loader = etree.Element("loader", readonly="yes", type="pflash")
    loader.text = firmware.loader
    variables = etree.Element("nvram")
    variables.text = nvram
    if firmware.template is not None:
        variables.set("template", firmware.template)
    for element, format in ((loader, firmware.format), (variables, firmware.template_format)):
        if format != "raw":  # older versions of libvirt know no other, and not the attribute
            element.set("format", format)
    at(system, "type").addnext(loader)
    loader.addnext(variables)
    disk = at(document, "devices/disk[1]")
    if disk.find("readonly") is None:
        etree.SubElement(disk, "readonly")


def nvram_size(golden: Golden) -> int | None:
    """Return the bytes of a clone's file for UEFI variables; None if libvirt creates it.

    QEMU requires the flash's exact size: 64 MiB (hw/arm/virt.c, VIRT_FLASH, halved).
    """
    nvram = golden.definition.find("os/nvram")
    return FLASH if nvram is not None and nvram.get("format", "raw") == "raw" else None


def set_mark(definition: etree._Element, mark: Mark) -> None:
    """Store a golden's mark in its definition."""
    at(definition, "metadata").append(_to_element(mark))


def change_mark(connection: Connection, golden: Golden, mark: Mark) -> None:
    """Replace the data recorded about a golden."""
    definition = deepcopy(golden.definition)
    remove(at(definition, f"metadata/{GOLDEN}"))
    set_mark(definition, mark)
    lifecycle.define(connection, to_text(definition), golden.name)


def definition_of_clone(
    golden: Golden, spec: DomainSpec, record: Record, *, disposable: bool = False
) -> etree._Element:
    """Return the definition for a clone's first run: the golden's devices with the clone's names.

    With user networking the MAC address stays the golden's during this run, including reboots:
    QEMU assigned to it the address that the ssh forward uses, and would assign another address to
    another card. On a libvirt network the clone has its own: the guest adopts it with its
    identity, and its link is down until then.

    A *disposable* clone's writes need not reach the disk: it ignores flushes, and keeps its UEFI
    variables in QEMU's memory. With a file, QEMU would write all of it at the first instruction.
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
        nvram.text = spec.nvram  # its contents are part of the saved state
    at(document, "devices/disk[1]/source").set("file", spec.overlay)
    at(document, "devices/disk[2]/source").set("file", spec.seed or "")
    if disposable:
        at(document, "devices/disk[1]/driver").set("cache", "unsafe")
    for log in select(document, "devices/serial/log | devices/console/log"):
        log.set("file", spec.serial_log)
    for interface, card in zip(select(document, "devices/interface"), spec.cards, strict=True):
        if card.is_user:
            continue
        connect(interface, card)
        # It sends nothing before it has its own identity (see host/network/link.py).
        for old in interface.findall("link"):
            interface.remove(old)
        etree.SubElement(interface, "link", state="down")
    return document


def _without_variables(system: etree._Element) -> None:
    """Keep a firmware's variables in QEMU's memory, with a fixed firmware path.

    libvirt adds ``<firmware>`` when it defines a golden, and since 11.3 uses it to search for a
    stateless firmware. There is none for ARM64.
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
    return Golden(
        name=domain.name(),
        uuid=domain.UUIDString(),
        mark=mark,
        definition=document,
        overlay=at(document, "devices/disk[1]/source").get("file", ""),
        seed=at(document, "devices/disk[2]/source").get("file", ""),
        cards=cards_in(document),
    )


def _to_element(mark: Mark) -> etree._Element:
    root = etree.Element(GOLDEN, nsmap={"armvm-golden": NAMESPACE})
    root.set("created", mark.created)
    root.set("state-digest", mark.state_digest)
    root.set("route", mark.route)
    for key, text in (("imported", mark.imported), ("signer", mark.signer)):
        if text is not None:
            root.set(key, text)
    if mark.pool:
        root.set("pool", str(mark.pool))
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
        raise ValueError("not an armvm golden")
    return Mark(
        created=root.get("created", ""),
        shape=shape,
        ground=ground,
        state_digest=root.get("state-digest", ""),
        record=record,
        route=root.get("route", memory.COW),
        imported=root.get("imported"),
        signer=root.get("signer"),
        pool=int(root.get("pool", "0")),
    )
