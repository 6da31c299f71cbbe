"""The definition of a machine made into that of a copy: what tells the two apart is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lxml import etree

from armvm.base.errors import Conflict
from armvm.host.domain.metadata import NAMESPACE, Record, to_element
from armvm.host.xml import at, parse, remove, select


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What is the copy's own. ``paths`` has its files' paths by those of the original."""

    name: str
    uuid: str
    mac: str
    record: Record
    paths: Mapping[str, str]


def copied(xml: str, copy: Copy, new_mac: Callable[[], str]) -> etree._Element:
    """Return the domain element of a copy of the machine whose definition is *xml*.

    Its first network card has the copy's MAC address, others get *new_mac*'s. Raises Conflict
    for a machine with a disk of its own besides root disk and seed, or a device of the host's.
    """
    document = parse(xml)
    name = at(document, "name").text
    for disk in select(document, "devices/disk[position() > 2]"):
        if disk.find("source") is not None and disk.find("readonly") is None:
            raise Conflict(
                f"{name} has another disk that it writes to, and two machines cannot share one",
                hint=f"detach it first: virsh detach-disk {name} --config "
                f"{at(disk, 'target').get('dev')}",
            )
    if select(document, "devices/hostdev"):
        raise Conflict(f"{name} has a device of the host's, which no two machines can share")
    at(document, "name").text = copy.name
    at(document, "uuid").text = copy.uuid
    for element in select(
        document, "devices/channel/source | devices/interface/target | seclabel | genid"
    ):
        remove(element)
    for entry in select(document, "sysinfo/system/entry[@name='uuid']"):
        entry.text = copy.uuid
    for index, interface in enumerate(select(document, "devices/interface")):
        at(interface, "mac").set("address", copy.mac if index == 0 else new_mac())
    metadata = at(document, "metadata")
    for element in metadata.findall(f"{{{NAMESPACE}}}machine"):
        metadata.remove(element)
    metadata.append(to_element(copy.record))
    point_at(document, copy.paths)
    return document


def point_at(document: etree._Element, paths: Mapping[str, str]) -> None:
    """Put other paths into a domain element, wherever it names one of those in *paths*."""
    for element in document.iter(etree.Element):
        text = (element.text or "").strip()
        if text in paths:
            element.text = paths[text]
        for key, value in element.items():
            if str(value) in paths:
                element.set(key, paths[str(value)])
