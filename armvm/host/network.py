"""libvirt networks, and the addresses machines have on them."""

from __future__ import annotations

import ipaddress

import libvirt

from armvm.errors import NotFound
from armvm.host.connection import Connection, Domain, errors, is_code
from armvm.progress import Progress
from armvm.spec.names import shown


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
    lease, agent = (
        libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
        libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
    )
    for source in (agent,) if by_agent else (lease, agent):
        try:
            interfaces = domain.interfaceAddresses(source, 0)
        except libvirt.libvirtError as error:
            # No lease file, no agent, not running: there is no address to be had this way.
            if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                return []
            continue
        found = [
            entry["addr"]
            for interface in interfaces.values()
            for entry in interface["addrs"] or []
            if entry["type"] == libvirt.VIR_IP_ADDR_TYPE_IPV4
            and not ipaddress.ip_address(entry["addr"]).is_loopback
        ]
        if found:
            return found
    return []
