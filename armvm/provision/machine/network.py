"""Connects a machine to its libvirt network: starts the network and reserves an address."""

from __future__ import annotations

from armvm.base.progress import Progress
from armvm.host.connection import Connection
from armvm.host.domain.domain_xml import DomainSpec
from armvm.host.facts import HostFacts
from armvm.host.network import networks, own_network
from armvm.provision.machine.undo import Undo


def check(connection: Connection, network: str | None) -> None:
    """Raise NotFound if a machine's network does not exist. armvm creates its own on demand."""
    if network not in (None, own_network.OWN_NETWORK):
        networks.check_network(connection, network)


def join(
    connection: Connection,
    facts: HostFacts,
    spec: DomainSpec,
    progress: Progress,
    undo: Undo,
    *,
    start: bool = True,
) -> None:
    """Start a machine's network and, on armvm's own, reserve an address for the machine.

    Does not start another network if the machine does not *start* now.
    """
    if spec.network is None:
        return
    if spec.network != own_network.OWN_NETWORK:
        if start:
            networks.ensure_active(connection, spec.network, progress)
        return
    own_network.ensure(connection, local=facts.local, progress=progress)
    undo.add(lambda: own_network.release(connection, spec.name))
    own_network.reserve(connection, spec.mac, spec.name)


def leave(connection: Connection, name: str, network_name: str | None) -> None:
    """Release the address that `join` reserved for a machine."""
    if network_name == own_network.OWN_NETWORK:
        own_network.release(connection, name)
