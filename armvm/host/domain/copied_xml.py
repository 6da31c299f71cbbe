"""A machine's definition turned into that of a copy, with new names, paths and addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lxml import etree

from armvm.base.errors import Conflict
from armvm.host.domain.metadata import NAMESPACE, Record, to_element
from armvm.host.xml import at, parse, remove, select


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The copy's own values. ``paths`` maps the original's file paths to the copy's."""

    name: str
    uuid: str
    mac: str
    record: Record
    paths: Mapping[str, str]


def copied(xml: str, copy: Copy, new_mac: Callable[[], str]) -> etree._Element:
    """Return the domain element of a copy of the machine whose definition is *xml*.

    The first network card gets the copy's MAC address, others get *new_mac*'s. Raises Conflict
    for a machine with further writable disks that *copy* does not copy, or with a host device.
    """
    document = parse(xml)
    name = at(document, "name").text
    for disk in select(document, "devices/disk[position() > 1]"):
        source = disk.find("source")
        if source is None or disk.find("readonly") is not None:
            continue
        if source.get("file") not in copy.paths:
            raise Conflict(
                f"{name} has another writable disk, and two machines cannot share one",
                hint=f"detach it first: armvm disk remove {name} {at(disk, 'target').get('dev')}",
            )
    if select(document, "devices/hostdev"):
        raise Conflict(f"{name} uses a host device, which two machines cannot share")
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
    """Replace the paths in a domain element that are keys of *paths*."""
    for element in document.iter(etree.Element):
        text = (element.text or "").strip()
        if text in paths:
            element.text = paths[text]
        for key, value in element.items():
            if str(value) in paths:
                element.set(key, paths[str(value)])
