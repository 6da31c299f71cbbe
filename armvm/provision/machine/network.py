"""A machine's place on its libvirt network: the network runs, and an address is kept for it."""

from __future__ import annotations

from armvm.base.progress import Progress
from armvm.host.connection import Connection
from armvm.host.domain.domain_xml import DomainSpec
from armvm.host.facts import HostFacts
from armvm.host.network import networks, own_network
from armvm.provision.machine.undo import Undo


def check(connection: Connection, spec: DomainSpec) -> None:
    """Raise NotFound when a machine's network does not exist; armvm's own is made when needed."""
    if spec.network not in (None, own_network.OWN_NETWORK):
        networks.check_network(connection, spec.network)


def join(
    connection: Connection,
    facts: HostFacts,
    spec: DomainSpec,
    progress: Progress,
    undo: Undo,
    *,
    start: bool = True,
) -> None:
    """Have a machine's network running, and on armvm's own an address kept for the machine.

    Another's network is left as it is for a machine that does not *start* now.
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
    """Give back what `join` kept for a machine."""
    if network_name == own_network.OWN_NETWORK:
        own_network.release(connection, name)
