"""Connects a machine to its networks: checks and starts them, and reserves addresses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from armvm.base.errors import ConfigError
from armvm.base.progress import Progress
from armvm.host.connection import Connection
from armvm.host.domain.domain_xml import DomainSpec
from armvm.host.domain.instance import Instance
from armvm.host.facts import HostFacts
from armvm.host.network import networks, own_network, reservations
from armvm.host.network.card import Card, Cards
from armvm.host.network.devices import check_device
from armvm.host.network.own_network import OWN_NETWORK
from armvm.provision.machine.undo import Undo
from armvm.settings.networks import Attachment, Kind

_OWN = Attachment(Kind.NETWORK, OWN_NETWORK)


def check(
    connection: Connection,
    facts: HostFacts,
    spec: DomainSpec | Instance,
    address: str | None = None,
) -> str | None:
    """Check that a machine's networks, and the requested *address*, can be used.

    Returns the MAC address that the machine's first card needs for *address*, None if any will do.

    Raises NotFound for a network or device that does not exist (armvm creates its own on demand),
    ConfigError for an address that no machine can have there, Conflict for one that is taken.
    """
    for card in spec.cards:
        if card.to.kind is Kind.NETWORK and card.to != _OWN:
            networks.check_network(connection, card.to.source)
        elif card.to.kind in (Kind.BRIDGE, Kind.MACVTAP):
            check_device(connection, card.to, local=facts.local)
    if address is None:
        return None
    if not spec.cards:
        raise ConfigError("--ip cannot be used with a machine without a network card")
    first = spec.cards[0].to
    if first.kind is Kind.USER:
        raise ConfigError(
            "--ip cannot be used with user networking: QEMU assigns the address",
            hint=f"use a libvirt network: --network {OWN_NETWORK}",
        )
    if first.kind is not Kind.NETWORK:
        raise ConfigError(
            f"--ip cannot be used with {first}: the DHCP server of that network is not libvirt's",
            hint="reserve the address there, or set it in the guest: --network-config FILE",
        )
    return reservations.check(connection, first.source, address, spec.name)


def join(
    connection: Connection,
    facts: HostFacts,
    spec: DomainSpec | Instance,
    progress: Progress,
    undo: Undo,
    *,
    address: str | None = None,
    start: bool = True,
) -> None:
    """Start a machine's networks and, on armvm's own, reserve an address for the machine.

    Reserves *address* on the first network, whichever it is. Does not start other networks than
    armvm's own if the machine does not *start* now.
    """
    for card in spec.cards:
        if card.to == _OWN:
            own_network.ensure(connection, local=facts.local, progress=progress)
        elif start and card.to.kind is Kind.NETWORK:
            networks.ensure_active(connection, card.to.source, progress)
    for card in _reserving(spec, address):
        undo.add(partial(reservations.release, connection, *_of(card, spec.name)))
        wanted = address if card is spec.cards[0] else None
        reservations.reserve(connection, *_of(card, spec.name), wanted)


def leave(connection: Connection, instance: Instance) -> None:
    """Release the addresses that `join` reserved for a machine."""
    for card in _reserving(instance, instance.record.settings.get("ip")):
        reservations.release(connection, *_of(card, instance.name))


def rename(connection: Connection, instance: Instance, old: str, new: str) -> None:
    """Keep the addresses that `join` reserved for a machine under its new name."""
    for card in _reserving(instance, instance.record.settings.get("ip")):
        reservations.rename(connection, card.to.source, card.mac, old, new)


def reserved(connection: Connection, instance: Instance) -> str | None:
    """Return the address that is reserved for a machine's first card; None if there is none."""
    for card in _reserving(instance, instance.record.settings.get("ip")):
        if card is instance.cards[0]:
            return reservations.reserved(connection, *_of(card, instance.name))
    return None


def _reserving(machine: Cards, address: str | None) -> Iterator[Card]:
    """Yield the cards for which armvm reserves an address."""
    for index, card in enumerate(machine.cards):
        if card.to == _OWN or (index == 0 and address and card.to.kind is Kind.NETWORK):
            yield card


def _of(card: Card, name: str) -> tuple[str, str, str]:
    return card.to.source, card.mac, name
