"""Reading XML from libvirt with lxml: parsing without entities, and selecting elements."""

from __future__ import annotations

from typing import cast

from lxml import etree


def parse(text: str) -> etree._Element:
    """Return the root of an XML document. Entities are not resolved, nothing is fetched."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)
    return etree.fromstring(text.encode(), parser)


def to_text(element: etree._Element) -> str:
    """Return an element as indented text."""
    etree.indent(element)
    return etree.tostring(element, encoding="unicode") + "\n"


def select(element: etree._Element, path: str) -> list[etree._Element]:
    """Return the elements that an XPath selects below *element*."""
    return cast("list[etree._Element]", element.xpath(path))


def at(element: etree._Element, path: str) -> etree._Element:
    """Return the one element at a path. Raises LookupError where there is none."""
    found = element.find(path)
    if found is None:
        raise LookupError(f"{element.tag} has no {path}")
    return found


def remove(element: etree._Element) -> None:
    """Take an element out of its parent."""
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)
