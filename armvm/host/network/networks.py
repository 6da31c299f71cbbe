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

#: The sources of addresses: libvirt's DHCP leases, the guest agent, and the host's ARP table.
LEASE = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
AGENT = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
ARP = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP


def network_names(connection: Connection) -> list[str]:
    """Return the names of all networks, running or not."""
    with errors("listing the networks"):
        return sorted(network.name() for network in connection.listAllNetworks(0))


def check_network(connection: Connection, name: str) -> None:
    """Raise NotFound if the network *name* does not exist."""
    if name not in network_names(connection):
        known = ", ".join(network_names(connection)) or "none"
        raise NotFound(
            f"network {shown(name)} not found",
            hint=f"available networks: {known}; --network user works without one",
        )


def ensure_active(connection: Connection, name: str, progress: Progress) -> None:
    """Start a network that is not running, and report it."""
    with errors(f"starting the network {shown(name)}"):
        network = connection.networkLookupByName(name)
        if network.isActive():
            return
        try:
            network.create()
        except libvirt.libvirtError:
            if not network.isActive():  # another process may have started it
                raise
            return
    progress.say(f"started the network {name}")


def addresses(domain: Domain, *, by_agent: bool = False, mac: str | None = None) -> list[str]:
    """Return a running machine's IPv4 addresses, from the first source that has any.

    The sources are DHCP leases, the guest agent, and the host's ARP table. Empty while it has none,
    or if it stops in between. *by_agent*: only ask the guest agent. *mac*: only those of that card.
    """
    for source in (AGENT,) if by_agent else (LEASE, AGENT, ARP):
        found = [
            str(address)
            for interface in told_by(domain, source).values()
            if mac is None or interface["hwaddr"] == mac
            for entry in interface["addrs"] or []
            if (address := address_in(entry)) is not None and address.version == 4
        ]
        if found:
            return found
    return []


def address_in(entry: dict[str, Any]) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in an entry of an interface, without an IPv6 scope.

    None for a loopback address, and for text that is not an address: the guest may send anything.
    """
    try:
        address = ipaddress.ip_address(str(entry["addr"]).partition("%")[0])
    except ValueError:
        return None
    return None if address.is_loopback else address


def told_by(domain: Domain, source: int) -> dict[str, Any]:
    """Return the interfaces from one source, as libvirt returns them; {} if it has none.

    Asks the agent only while it is connected: libvirt logs an error for each query of a
    disconnected agent, and a booting machine is queried twice a second.
    """
    if source == AGENT and not agent.connected(domain):
        return {}
    try:
        return dict(domain.interfaceAddresses(source, 0))
    except libvirt.libvirtError:
        return {}  # no lease file, not running, or the agent does not answer
