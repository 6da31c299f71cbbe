"""List, show, create and delete libvirt networks."""

from __future__ import annotations

import ipaddress
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from armvm.base.errors import ConfigError, Conflict
from armvm.base.result import Doc, MacAddress, UtcTime, Uuid
from armvm.host.connection import Connection
from armvm.host.facts import HostFacts
from armvm.host.network import define
from armvm.host.network.card import Card
from armvm.host.network.observed import (
    Observed,
    cards_of_domains,
    observe,
    observe_all,
    remove,
)
from armvm.settings.names import shown
from armvm.settings.networks import Kind, attachment


@dataclass(frozen=True, kw_only=True)
class ListedNetwork:
    """A libvirt network, as `armvm network list` shows it."""

    name: Annotated[str, Doc("The network's name.")]
    mode: Annotated[
        str, Doc("nat, isolated, or libvirt's other forward modes: route, open, bridge, ….")
    ]
    subnet: Annotated[str | None, Doc("Its IPv4 subnet; null: libvirt gives it none.")]
    bridge: Annotated[str | None, Doc("The host's bridge.")]
    active: Annotated[bool, Doc("Whether it is running.")]
    autostart: Annotated[bool, Doc("Whether libvirt starts it with the host.")]
    own: Annotated[bool, Doc("Whether armvm created it, and can delete it.")]
    machines: Annotated[
        list[str], Doc("The domains with a card on it: machines, goldens and other tools' domains.")
    ]


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """An address that the network keeps for a machine."""

    address: Annotated[str, Doc("The address.")]
    mac: Annotated[str | None, Doc("The MAC address of its card.")]
    name: Annotated[str | None, Doc("The name in the reservation: the machine's.")]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """An address that the network's DHCP server has assigned."""

    address: Annotated[str, Doc("The address.")]
    mac: MacAddress
    machine: Annotated[str | None, Doc("The domain with that card; null: not known.")]
    hostname: Annotated[str | None, Doc("The name that the guest sent.")]
    expires: Annotated[UtcTime | None, Doc("When the lease ends, in UTC; null: never.")]


@dataclass(frozen=True, kw_only=True)
class NetworkDetails(ListedNetwork):
    """All facts about a libvirt network."""

    uuid: Annotated[Uuid, Doc("The network's UUID.")]
    host_address: Annotated[str | None, Doc("The host's own IPv4 address on it.")]
    dhcp: Annotated[list[str], Doc("The ranges from which addresses are assigned: FIRST-LAST.")]
    reservations: Annotated[list[Reservation], Doc("Addresses kept for machines, in order.")]
    leases: Annotated[list[Lease], Doc("Addresses in use, in order.")]


def listed(connection: Connection) -> list[ListedNetwork]:
    """Return all networks, running or not, by name."""
    cards = cards_of_domains(connection)
    return [ListedNetwork(**_fields(one, cards)) for one in observe_all(connection)]


def describe(connection: Connection, name: str) -> NetworkDetails:
    """Return the details of a network. Raises NotFound."""
    network, cards = observe(connection, name), cards_of_domains(connection)
    machines = {card.mac: domain for domain, own in cards.items() for card in own}
    return NetworkDetails(
        **_fields(network, cards),
        uuid=network.uuid,
        host_address=network.host_address,
        dhcp=network.ranges,
        reservations=[
            Reservation(address=address, mac=mac, name=owner)
            for address, mac, owner in sorted(network.reserved, key=lambda one: _order(one[0]))
        ],
        leases=sorted(
            (_lease(one, machines) for one in network.leases), key=lambda one: _order(one.address)
        ),
    )


def create(
    connection: Connection, facts: HostFacts, name: str, subnet: str | None, *, isolated: bool
) -> None:
    """Create a network that machines can use, and start it.

    Raises ConfigError for an invalid name or subnet and in a session, Conflict for a taken one.
    """
    # --network strips white space from its value.
    if attachment(name).kind is not Kind.NETWORK or name != name.strip():
        raise ConfigError(
            f"{shown(name)} cannot be used as a network's name: --network {shown(name)} has "
            "another meaning",
            hint="choose another name",
        )
    if facts.session:
        raise ConfigError(
            "networks cannot be created in qemu:///session, which supports user networking only",
            hint="use --connect qemu:///system",
        )
    wanted = None if subnet is None else define.parse_subnet(subnet)
    define.create(connection, name, wanted, isolated=isolated, local=facts.local)


def assert_deletable(connection: Connection, name: str) -> None:
    """Raise an error if armvm must not delete a network.

    NotFound if it does not exist, Conflict if another tool made it or if machines use it.
    """
    if not observe(connection, name).own:
        word = shlex.quote(name)
        raise Conflict(
            f"network {name} was not created by armvm",
            hint=f"delete it with virsh: virsh net-destroy {word}; virsh net-undefine {word}",
        )
    users = _users(cards_of_domains(connection), name)
    if users:
        raise Conflict(
            f"network {name} is in use by " + ", ".join(users), hint="delete these machines first"
        )


def delete(connection: Connection, name: str) -> None:
    """Stop and remove a network that armvm created. Raises as `assert_deletable` does."""
    assert_deletable(connection, name)
    remove(connection, name)


def _fields(network: Observed, cards: Mapping[str, Iterable[Card]]) -> dict[str, Any]:
    """Return the fields of a ListedNetwork."""
    return {
        "name": network.name,
        "mode": network.mode,
        "subnet": network.subnet,
        "bridge": network.bridge,
        "active": network.active,
        "autostart": network.autostart,
        "own": network.own,
        "machines": _users(cards, network.name),
    }


def _users(cards: Mapping[str, Iterable[Card]], name: str) -> list[str]:
    """Return the domains with a card on a network."""
    return sorted(
        domain for domain, own in cards.items() if any(card.to.source == name for card in own)
    )


def _lease(lease: Mapping[str, object], machines: Mapping[str, str]) -> Lease:
    expires, mac = int(str(lease["expirytime"])), str(lease["mac"])
    return Lease(
        address=str(lease["ipaddr"]),
        mac=mac,
        machine=machines.get(mac),
        hostname=None if lease["hostname"] is None else str(lease["hostname"]),
        expires=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)) if expires else None,
    )


def _order(address: str) -> tuple[int, int]:
    """Return a sort key for addresses of both versions."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return 0, 0
    return found.version, int(found)
