"""armvm's own NAT network: without STP, on a free subnet, with a reserved address per machine.

libvirt's ``default`` network has STP on, so that a port forwards nothing for some 4 s, and its
dnsmasq probes an address for 3 s before it assigns it; a reserved one is assigned at once (both
measured). virsh and virt-manager show and manage it like any other network.

Source of the formats: libvirt's formatnetwork.html, and virNetworkUpdate for the reservations.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from pathlib import Path

import libvirt
from lxml import etree

from armvm.base.errors import HostError
from armvm.base.progress import Progress
from armvm.base.signals import shielded
from armvm.host.connection import Connection, errors, is_code
from armvm.host.network.subnets import Subnet, free_subnets, routes
from armvm.host.xml import parse, select, to_text

OWN_NETWORK = "armvm"
_ROUTES = Path("/proc/net/route")
#: Seconds to wait for another process to finish creating the network.
_PATIENCE = 10.0
#: How often to retry if another process has taken the same address.
_TRIES = 20


def ensure(connection: Connection, *, local: bool, progress: Progress) -> None:
    """Create the network if it does not exist, and start it.

    *local* means that this machine's routes are the host's. Raises HostError if no subnet is
    free, and the translations of libvirt's errors.
    """
    with errors(f"creating the network {OWN_NETWORK}"):
        if _is_active(connection):
            return
        if _find(connection) is None:
            _make(connection, local)
        network = _find(connection)
        if network is not None and not network.isActive():
            try:
                network.create()
            except libvirt.libvirtError:
                if not _soon_active(connection):
                    raise
    progress.say(f"started the network {OWN_NETWORK}")


def reserve(connection: Connection, mac: str, name: str) -> str | None:
    """Reserve an address for the machine *name*, and return it; the network must be running.

    None if the network, edited by its owner, lacks DHCP. Raises HostError if all addresses are
    taken.
    """
    with errors(f"reserving an address for {name}"):
        network = connection.networkLookupByName(OWN_NETWORK)
        for attempt in range(_TRIES):
            document = parse(network.XMLDesc(0))
            for old in _entries(document, mac, name):
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, old)
            pool = _addresses(document)
            if not pool:
                return None
            # While another machine's lease lasts, dnsmasq does not assign a reserved address.
            taken = {one.get("ip") for one in select(document, "ip/dhcp/host")}
            taken |= {lease["ipaddr"] for lease in network.DHCPLeases(None, 0)}
            free = next((str(address) for address in pool if str(address) not in taken), None)
            if free is None:
                _drop_stale(connection, network, document)
                continue
            host = etree.Element("host", mac=mac, name=name, ip=free)
            try:
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, host)
                return free
            except libvirt.libvirtError as error:
                # Another process took it in between; libvirt reports no specific error code.
                if "existing dhcp host entry" not in str(error) or attempt + 1 == _TRIES:
                    raise
    raise HostError(
        f"no free address on the network {OWN_NETWORK}",
        hint="delete machines ('armvm list'), or use --network NAME",
    )


def release(connection: Connection, name: str) -> None:
    """Release a machine's address; does nothing if it has none."""
    with errors(f"releasing the address of {name}"):
        network = _find(connection)
        if network is None:
            return
        for old in _entries(parse(network.XMLDesc(0)), None, name):
            with contextlib.suppress(libvirt.libvirtError):  # another process released it first
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, old)


def rename(connection: Connection, old: str, new: str) -> None:
    """Keep a machine's reserved address under its new name."""
    with shielded(), errors(f"renaming the address reservation of {new}"):
        network = _find(connection)
        for entry in [] if network is None else _entries(parse(network.XMLDesc(0)), None, old):
            # In one step: another process could take an address that is free for a moment.
            entry.set("name", new)
            _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_MODIFY, entry)


def reserved(connection: Connection, name: str) -> str | None:
    """Return the address reserved for a machine; None if there is none."""
    with errors(f"looking for the address of {name}"):
        network = _find(connection)
        if network is None:
            return None
        found = _entries(parse(network.XMLDesc(0)), None, name)
    return found[0].get("ip") if found else None


def _make(connection: Connection, local: bool) -> None:
    """Define and start the network on the first subnet that libvirt accepts."""
    taken = _known_subnets(connection)
    if local:
        with contextlib.suppress(OSError):
            taken += routes(_ROUTES.read_text())
    for subnet in free_subnets(taken):
        try:
            network = connection.networkDefineXML(to_text(_definition(subnet)))
        except libvirt.libvirtError:
            if _soon_active(connection):  # another process created it
                return
            raise
        try:
            network.create()
            network.setAutostart(1)
            return
        except libvirt.libvirtError as error:
            if network.isActive():
                return
            with contextlib.suppress(libvirt.libvirtError):
                network.undefine()
            # libvirt checks the host's routes, even when armvm cannot see them.
            if "already in use" not in str(error):
                raise
    raise HostError(
        f"no free subnet for the network {OWN_NETWORK}",
        hint="use --network NAME (list them: virsh net-list --all), or --network user",
    )


def _definition(subnet: Subnet) -> etree._Element:
    network = etree.Element("network")
    etree.SubElement(network, "name").text = OWN_NETWORK
    etree.SubElement(network, "forward", mode="nat")
    etree.SubElement(network, "bridge", stp="off", delay="0")
    ip = etree.SubElement(network, "ip", address=str(subnet[1]), prefix=str(subnet.prefixlen))
    dhcp = etree.SubElement(ip, "dhcp")
    etree.SubElement(dhcp, "range", start=str(subnet[2]), end=str(subnet[-2]))
    return network


def _known_subnets(connection: Connection) -> list[Subnet]:
    found = []
    for network in connection.listAllNetworks(0):
        try:
            document = parse(network.XMLDesc(0))
        except libvirt.libvirtError:
            continue  # removed in between
        for ip in select(document, "ip[not(@family) or @family='ipv4']"):
            width = ip.get("prefix") or ip.get("netmask") or "24"
            with contextlib.suppress(ValueError):
                found.append(ipaddress.IPv4Network(f"{ip.get('address')}/{width}", strict=False))
    return found


def _find(connection: Connection) -> libvirt.virNetwork | None:
    try:
        return connection.networkLookupByName(OWN_NETWORK)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_NETWORK):
            return None
        raise


def _is_active(connection: Connection) -> bool:
    network = _find(connection)
    return network is not None and bool(network.isActive())


def _soon_active(connection: Connection) -> bool:
    end = time.monotonic() + _PATIENCE
    while not _is_active(connection):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _addresses(document: etree._Element) -> list[ipaddress.IPv4Address]:
    found = []
    for one in select(document, "ip/dhcp/range"):
        first, last = (int(ipaddress.IPv4Address(one.get(end, ""))) for end in ("start", "end"))
        found += [ipaddress.IPv4Address(number) for number in range(first, last + 1)]
    return found


def _entries(document: etree._Element, mac: str | None, name: str) -> list[etree._Element]:
    return [
        one
        for one in select(document, "ip/dhcp/host")
        if one.get("name") == name or (mac is not None and one.get("mac") == mac)
    ]


def _drop_stale(
    connection: Connection, network: libvirt.virNetwork, document: etree._Element
) -> None:
    """Release the addresses of machines that other tools have removed."""
    alive = {domain.name() for domain in connection.listAllDomains(0)}
    for one in select(document, "ip/dhcp/host"):
        if one.get("name") not in alive:
            with contextlib.suppress(libvirt.libvirtError):
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, one)


def _update(network: libvirt.virNetwork, command: int, host: etree._Element) -> None:
    flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
    if network.isActive():
        flags |= libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
    section = libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST
    network.update(command, section, -1, to_text(host), flags)
