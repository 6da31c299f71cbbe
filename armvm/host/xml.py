"""Read XML from libvirt with lxml: parse without entities, and select elements."""

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
    """Return the elements selected by an XPath below *element*."""
    return cast("list[etree._Element]", element.xpath(path))


def at(element: etree._Element, path: str) -> etree._Element:
    """Return the one element at a path. Raises LookupError if there is none."""
    found = element.find(path)
    if found is None:
        raise LookupError(f"{path} not found in {element.tag}")
    return found


def remove(element: etree._Element) -> None:
    """Remove an element from its parent."""
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)
