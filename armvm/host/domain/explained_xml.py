"""A domain's XML for `armvm explain`: its lines, and facts about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import libvirt
from lxml import etree

from armvm.host.connection import Connection, Domain, errors, is_code
from armvm.host.domain.metadata import NAMESPACE, PREFIX
from armvm.host.network.networks import addresses
from armvm.host.xml import parse

#: The prefixes in the paths of the explanation pages.
NAMESPACES = {
    PREFIX: NAMESPACE,
    "libosinfo": "http://libosinfo.org/xmlns/libvirt/domain/1.0",
    "qemu": "http://libvirt.org/schemas/domain/qemu/1.0",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """An element as one line of XML, without its children.

    ``path`` is the first given path that selects it, or None; ``names`` are its attributes.
    ``times`` counts consecutive identical elements.
    """

    text: str
    depth: int
    path: str | None
    names: tuple[str, ...]
    times: int = 1


def lines(text: str, paths: Sequence[str]) -> Iterator[Line]:
    """Yield a domain's elements in order, each with the XPath from *paths* that matches it."""
    root = parse(text)
    owners: dict[etree._Element, str] = {}
    for path in paths:
        steps = " | ".join(f"/{step.strip()}" for step in path.split("|"))
        selected = cast("list[etree._Element]", root.xpath(steps, namespaces=NAMESPACES))
        for element in selected:
            owners.setdefault(element, path)
    yield from _walk([root], owners, 0)


def _walk(
    elements: Sequence[etree._Element], owners: dict[etree._Element, str], depth: int
) -> Iterator[Line]:
    number = 0
    while number < len(elements):
        element = elements[number]
        times = 1
        while number + times < len(elements) and _alike(element, elements[number + times], owners):
            times += 1
        yield Line(
            text=_own_line(element),
            depth=depth,
            path=owners.get(element),
            names=tuple(str(name) for name in element.attrib),
            times=times,
        )
        yield from _walk([one for one in element if isinstance(one.tag, str)], owners, depth + 1)
        number += times


def _alike(one: etree._Element, other: etree._Element, owners: dict[etree._Element, str]) -> bool:
    def facts(element: etree._Element) -> tuple[Any, ...]:
        attributes = {key: value for key, value in element.attrib.items() if key != "index"}
        return element.tag, owners.get(element), attributes

    return one.tag == "controller" and facts(one) == facts(other)


def _own_line(element: etree._Element) -> str:
    bare = copy(element)
    inner = any(isinstance(one.tag, str) for one in bare)
    for child in list(bare):
        bare.remove(child)
    bare.tail = None
    if inner:
        bare.text = None
    line = etree.tostring(bare, encoding="unicode")
    parent = element.getparent()
    for prefix, name in ({} if parent is None else parent.nsmap).items():
        line = line.replace(f' xmlns:{prefix}="{name}"', "", 1)  # an outer line declares it
    return line.removesuffix("/>") + ">" if inner else line


#: A value of a machine's definition.
Fact = str | int | bool | list[str] | None


def boot_facts(domain: Domain) -> dict[str, Fact]:
    """Return a machine's boot settings: as it runs, or as it would run if started now."""
    with errors(f"reading {domain.name()}"):
        document = parse(domain.XMLDesc(0))
    loader, nvram = document.find("os/loader"), document.find("os/nvram")
    return {
        "machine_type": document.find("os/type").get("machine"),  # type: ignore[union-attr]
        "firmware": None if loader is None else loader.text,
        "nvram": None if nvram is None else nvram.text,
        "nvram_template": None if nvram is None else nvram.get("template"),
        "kernel": document.findtext("os/kernel"),
        "initrd": document.findtext("os/initrd"),
        "command_line": document.findtext("os/cmdline"),
    }


def cpu_facts(domain: Domain) -> dict[str, Fact]:
    """Return a machine's CPU as its definition has it."""
    with errors(f"reading {domain.name()}"):
        document = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    cpu, gic = document.find("cpu"), document.find("features/gic")
    return {
        "mode": None if cpu is None else cpu.get("mode"),
        "model": None if cpu is None else cpu.findtext("model"),
        "cpus": int(document.findtext("vcpu") or 0),
        "gic": None if gic is None else gic.get("version"),
    }


def network_facts(connection: Connection, domain: Domain, name: str | None) -> dict[str, Fact]:
    """Return a libvirt network's facts (empty for a *name* of None), and the guest's addresses."""
    found: dict[str, Fact] = {"network": name, "addresses": addresses(domain)}
    if name is None:
        return found
    with errors(f"reading the network {name}"):
        try:
            network = connection.networkLookupByName(name)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_NETWORK):
                return found  # a host bridge, or a network that was removed
            raise
        document = parse(network.XMLDesc(0))
        active = bool(network.isActive())
    forward, bridge, ip = (document.find(tag) for tag in ("forward", "bridge", "ip"))
    return {
        **found,
        "active": active,
        "forward": None if forward is None else forward.get("mode"),
        "bridge": None if bridge is None else bridge.get("name"),
        "host_address": None if ip is None else ip.get("address"),
    }
