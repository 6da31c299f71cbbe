"""libvirt networks, and the addresses machines have on them."""

from __future__ import annotations

import ipaddress
from typing import Any

import libvirt

from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.host.agent import agent
from armvm.host.connection import Connection, Domain, errors
from armvm.settings.names import shown

#: Who knows addresses: libvirt's DHCP server, and the guest itself.
LEASE = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
AGENT = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT


def network_names(connection: Connection) -> list[str]:
    """Return the names of all networks, running or not."""
    with errors("listing the networks"):
        return sorted(network.name() for network in connection.listAllNetworks(0))


def check_network(connection: Connection, name: str) -> None:
    """Raise NotFound when there is no network *name*."""
    if name not in network_names(connection):
        known = ", ".join(network_names(connection)) or "none"
        raise NotFound(
            f"there is no network {shown(name)}",
            hint=f"networks here: {known}; --network user needs none",
        )


def ensure_active(connection: Connection, name: str, progress: Progress) -> None:
    """Start a network that is not running, and say so."""
    with errors(f"starting the network {shown(name)}"):
        network = connection.networkLookupByName(name)
        if network.isActive():
            return
        try:
            network.create()
        except libvirt.libvirtError:
            if not network.isActive():  # another process may have been faster
                raise
            return
    progress.say(f"started the network {name}")


def addresses(domain: Domain, *, by_agent: bool = False) -> list[str]:
    """Return a running machine's IPv4 addresses: from DHCP leases, else from the guest agent.

    Empty while it has none, or when it stops in between. *by_agent*: only what the guest says.
    """
    for source in (AGENT,) if by_agent else (LEASE, AGENT):
        found = [
            entry["addr"]
            for interface in told_by(domain, source).values()
            for entry in interface["addrs"] or []
            if entry["type"] == libvirt.VIR_IP_ADDR_TYPE_IPV4
            and not ipaddress.ip_address(entry["addr"]).is_loopback
        ]
        if found:
            return found
    return []


def told_by(domain: Domain, source: int) -> dict[str, Any]:
    """Return the interfaces that one source knows, as libvirt has them; {} if it knows none.

    The agent is asked only while it is connected: libvirt logs an error for each question to
    one that is not, and a booting machine is asked twice a second.
    """
    if source == AGENT and not agent.connected(domain):
        return {}
    try:
        return dict(domain.interfaceAddresses(source, 0))
    except libvirt.libvirtError:
        return {}  # no lease file, not running, an agent that does not answer
