"""libvirt networks as they are: their definitions, states and leases, and the domains on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import libvirt
from lxml import etree

from armvm.base.errors import NotFound
from armvm.base.signals import shielded
from armvm.host.connection import Connection, errors, is_code
from armvm.host.network import define
from armvm.host.network.card import Card, cards_in
from armvm.host.network.own_network import OWN_NETWORK
from armvm.host.network.reservations import leases
from armvm.host.xml import parse, select
from armvm.settings.names import shown
from armvm.settings.networks import Kind

#: The IPv4 part of a network's definition.
_IP = "ip[not(@family) or @family='ipv4']"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """An observed network, with its definition."""

    name: str
    uuid: str
    document: etree._Element = field(repr=False)
    active: bool
    autostart: bool
    leases: tuple[Mapping[str, object], ...]

    @property
    def mode(self) -> str:
        """libvirt's forward mode; ``isolated`` without one."""
        forward = self.document.find("forward")
        return "isolated" if forward is None else forward.get("mode", "nat")

    @property
    def subnet(self) -> str | None:
        """The first IPv4 subnet."""
        return next(iter(map(str, define.subnets_in(self.document))), None)

    @property
    def bridge(self) -> str | None:
        """The name of the host's bridge."""
        found = self.document.find("bridge")
        return None if found is None else found.get("name")

    @property
    def own(self) -> bool:
        """Whether armvm created it. An older armvm left no mark in its own network."""
        return self.name == OWN_NETWORK or define.is_marked(self.document)

    @property
    def host_address(self) -> str | None:
        """The host's first IPv4 address on it."""
        return next((one.get("address") for one in select(self.document, _IP)), None)

    @property
    def ranges(self) -> list[str]:
        """The ranges of the DHCP server, as FIRST-LAST."""
        found = select(self.document, f"{_IP}/dhcp/range")
        return [f"{one.get('start')}-{one.get('end')}" for one in found]

    @property
    def reserved(self) -> list[tuple[str, str | None, str | None]]:
        """Address, MAC address and name of each reservation."""
        found = select(self.document, "ip/dhcp/host")
        return [(one.get("ip", ""), one.get("mac"), one.get("name")) for one in found]


def observe_all(connection: Connection) -> list[Observed]:
    """Return all networks, by name, without their leases."""
    found = []
    with errors("listing the networks"):
        for network in connection.listAllNetworks(0):
            try:
                found.append(_observed(network, ()))
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_NETWORK):  # removed in between
                    raise
    return sorted(found, key=lambda one: one.name)


def observe(connection: Connection, name: str) -> Observed:
    """Return a network by name. Raises NotFound."""
    with errors(f"looking for the network {shown(name)}"):
        found = define.find(connection, name)
        if found is not None:
            return _observed(found, tuple(leases(found)))
    raise NotFound(f"network {shown(name)} not found", hint="list the networks: armvm network list")


def cards_of_domains(connection: Connection) -> dict[str, set[Card]]:
    """Return the cards on libvirt networks of all domains, as they run and when started."""
    found: dict[str, set[Card]] = {}
    with errors("listing the machines"):
        for domain in connection.listAllDomains(0):
            try:
                for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
                    cards = cards_in(parse(domain.XMLDesc(flags)))
                    own = {card for card in cards if card.to.kind is Kind.NETWORK}
                    found.setdefault(domain.name(), set()).update(own)
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):  # deleted in between
                    raise
    return found


def remove(connection: Connection, name: str) -> None:
    """Stop a network and remove its definition."""
    with shielded(), errors(f"deleting the network {name}"):
        network = connection.networkLookupByName(name)
        if network.isActive():
            network.destroy()
        network.undefine()


def _observed(network: libvirt.virNetwork, found: tuple[Mapping[str, object], ...]) -> Observed:
    return Observed(
        name=network.name(),
        uuid=network.UUIDString(),
        document=parse(network.XMLDesc(0)),
        active=bool(network.isActive()),
        autostart=bool(network.isPersistent() and network.autostart()),
        leases=found,
    )
