"""A machine's network cards in its domain XML.

Source: libvirt's formatdomain.html, "Network interfaces".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from armvm.host.xml import at, select
from armvm.settings.networks import Attachment, Kind

#: libvirt's type of the interface for each kind, and the attribute that names its source.
_TYPES = {
    Kind.NETWORK: ("network", "network"),
    Kind.BRIDGE: ("bridge", "bridge"),
    Kind.MACVTAP: ("direct", "dev"),
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """A network card, and what it is connected *to*."""

    to: Attachment
    mac: str

    @property
    def network(self) -> str:
        """The connection, as ``--network`` takes it."""
        return str(self.to)

    @property
    def is_user(self) -> bool:
        """Whether it uses QEMU's user networking."""
        return self.to.kind is Kind.USER


class Cards:
    """What an object with ``cards`` says about the first one, through which armvm logs in."""

    cards: tuple[Card, ...]

    @property
    def network(self) -> str | None:
        """The first card's network; None means user networking."""
        return None if not self.cards or self.cards[0].is_user else self.cards[0].network

    @property
    def mac(self) -> str | None:
        """The first card's MAC address; None if there is no card."""
        return self.cards[0].mac if self.cards else None

    @property
    def networks(self) -> list[str]:
        """The network of each card."""
        return [card.network for card in self.cards]


def plan_cards(wanted: Iterable[Attachment], mac: str) -> tuple[Card, ...]:
    """Return a card for each network; the first has *mac*, and each other one the next address."""
    prefix, number = mac[:9], int(mac[9:].replace(":", ""), 16)
    return tuple(
        Card(to=one, mac=prefix + (number + index).to_bytes(4, "big")[1:].hex(":"))
        for index, one in enumerate(wanted)
    )


def cards_in(domain: etree._Element) -> tuple[Card, ...]:
    """Return the network cards of a domain."""
    return tuple(
        Card(to=_connection(interface), mac=_attribute(interface, "mac", "address"))
        for interface in select(domain, "devices/interface")
    )


def connect(interface: etree._Element, card: Card) -> None:
    """Connect an interface element to a card's network, and give it the card's MAC address."""
    at(interface, "mac").set("address", card.mac)
    for source in interface.findall("source"):
        interface.remove(source)
    if card.is_user:
        interface.set("type", "user")
        return
    kind, name = _TYPES[card.to.kind]
    interface.set("type", kind)
    source = etree.Element("source", {name: card.to.source})
    if card.to.kind is Kind.MACVTAP:
        source.set("mode", "bridge")
    at(interface, "mac").addnext(source)


def linked(domain: etree._Element) -> list[etree._Element]:
    """Return the interface elements that have a link to cut: all but user networking's."""
    return select(domain, "devices/interface[not(@type='user')]")


def _connection(interface: etree._Element) -> Attachment:
    for kind, (named, attribute) in _TYPES.items():
        if interface.get("type") == named:
            return Attachment(kind, _attribute(interface, "source", attribute))
    other = interface.get("type", "user")
    return Attachment(Kind.USER) if other == "user" else Attachment(Kind.OTHER, other)


def _attribute(interface: etree._Element, tag: str, name: str) -> str:
    element = interface.find(tag)
    return "" if element is None else element.get(name, "")
