"""Networks that armvm defines: NAT or isolated, on a subnet that nothing on the host uses.

Source of the formats: libvirt's formatnetwork.html, and proc(5).
"""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

import libvirt
from lxml import etree

from armvm import __version__
from armvm.base.errors import ArmvmError, ConfigError, Conflict, HostError
from armvm.base.signals import shielded
from armvm.host.connection import Connection, errors, is_code
from armvm.host.network.subnets import PRIVATE, Subnet, free_subnets, local_addresses, routes
from armvm.host.xml import parse, select, to_text

NAMESPACE = "urn:armvm:network:1"
_MARK = f"{{{NAMESPACE}}}network"
_ROUTES, _ADDRESSES = Path("/proc/net/route"), Path("/proc/net/fib_trie")
#: The smallest and the largest subnet of a network.
LONGEST, SHORTEST = 29, 8
#: libvirt refuses a larger range of addresses.
_MOST_LEASES = 65535


def parse_subnet(text: str) -> Subnet:
    """Return the subnet of a new network. Raises ConfigError."""
    try:
        subnet = Subnet(text)
    except ValueError as error:
        with contextlib.suppress(ValueError):
            whole = Subnet(text, strict=False)
            raise ConfigError(
                f"{text} is an address in the subnet {whole}", hint=f"use --subnet {whole}"
            ) from error
        raise ConfigError(
            f"invalid subnet {text[:60]!a}", hint="use ADDRESS/PREFIX: --subnet 10.5.0.0/24"
        ) from error
    if not SHORTEST <= subnet.prefixlen <= LONGEST:
        raise ConfigError(
            f"{subnet} is out of range: a network takes /{SHORTEST} to /{LONGEST}",
            hint="for example --subnet 10.5.0.0/24",
        )
    if not any(subnet.subnet_of(one) for one in PRIVATE):
        raise ConfigError(
            f"{subnet} cannot be used: it is not a range for private networks",
            hint="use a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        )
    return subnet


def definition(name: str, subnet: Subnet, *, isolated: bool) -> etree._Element:
    """Return a network's XML. Its metadata says that armvm created it."""
    network = etree.Element("network")
    etree.SubElement(network, "name").text = name
    metadata = etree.SubElement(network, "metadata")
    etree.SubElement(metadata, _MARK, {"version": __version__}, nsmap={"armvm": NAMESPACE})
    if not isolated:
        etree.SubElement(network, "forward", mode="nat")
    etree.SubElement(network, "bridge", stp="off", delay="0")
    ip = etree.SubElement(network, "ip", address=str(subnet[1]), prefix=str(subnet.prefixlen))
    dhcp = etree.SubElement(ip, "dhcp")
    last = min(subnet.num_addresses - 2, _MOST_LEASES)
    etree.SubElement(dhcp, "range", start=str(subnet[2]), end=str(subnet[last]))
    return network


def is_marked(network: etree._Element) -> bool:
    """Return whether a network's XML says that armvm created it."""
    return network.find(f"metadata/{_MARK}") is not None


def subnets_in(network: etree._Element) -> list[Subnet]:
    """Return the IPv4 subnets in a network's XML."""
    found = []
    for ip in select(network, "ip[not(@family) or @family='ipv4']"):
        width = ip.get("prefix") or ip.get("netmask") or "24"
        with contextlib.suppress(ValueError):
            found.append(Subnet(f"{ip.get('address')}/{width}", strict=False))
    return found


def taken_subnets(connection: Connection, *, local: bool) -> list[tuple[Subnet, str]]:
    """Return the subnets that networks and, if *local*, the host itself use, each with its user."""
    found = []
    for network in connection.listAllNetworks(0):
        try:
            document, name = parse(network.XMLDesc(0)), network.name()
        except libvirt.libvirtError:
            continue  # removed in between
        found += [(subnet, f"the network {name}") for subnet in subnets_in(document)]
    if not local:
        return found
    with contextlib.suppress(OSError):
        found += [
            (Subnet(f"{address}/32"), f"the host's own address {address}")
            for address in local_addresses(_ADDRESSES.read_text())
        ]
    with contextlib.suppress(OSError):
        found += [(route, f"the host's route to {route}") for route in routes(_ROUTES.read_text())]
    return found


def create(
    connection: Connection, name: str, subnet: Subnet | None, *, isolated: bool, local: bool
) -> None:
    """Define and start a network that starts with the host; *subnet* None: the first free one.

    Raises Conflict for a taken name or subnet, HostError if none is free. On failure nothing is
    left behind.
    """
    with shielded(), errors(f"creating the network {name}"):
        if find(connection, name) is not None:
            raise Conflict(
                f"network {name} already exists", hint=f"show it: armvm network show {name}"
            )
        taken = taken_subnets(connection, local=local)
        if subnet is None:
            candidates = free_subnets(one for one, _ in taken)
        else:
            for one, user in taken:
                if subnet.overlaps(one):
                    raise _in_use(subnet, user)
            candidates = iter([subnet])
        for candidate in candidates:
            element = definition(name, candidate, isolated=isolated)
            try:
                if start(connection, element):
                    return
            except libvirt.libvirtError as error:
                # Another process defined it first: libvirt reports another UUID.
                if find(connection, name) is not None and is_code(
                    error, libvirt.VIR_ERR_OPERATION_FAILED
                ):
                    raise Conflict(f"network {name} already exists") from error
                raise
            if subnet is not None:
                raise _in_use(subnet, "an interface of the host")
    raise no_subnet(name)


def start(connection: Connection, element: etree._Element) -> bool:
    """Define and start a network, and set its autostart; return False if its subnet is in use.

    Raises libvirtError. Unless it runs, the network does not exist afterwards.
    """
    network = connection.networkDefineXML(to_text(element))
    try:
        network.create()
        network.setAutostart(1)
    except libvirt.libvirtError as error:
        if network.isActive():
            return True
        with contextlib.suppress(libvirt.libvirtError):
            network.undefine()
        # libvirt checks the host's routes, even when armvm cannot see them.
        if "already in use" in str(error):
            return False
        raise
    return True


def no_subnet(name: str) -> ArmvmError:
    """Return the error for a network for which no subnet is free."""
    return HostError(
        f"no free subnet for the network {name}",
        hint="use --network NAME (list them: armvm network list), or --network user",
    )


def find(connection: Connection, name: str) -> libvirt.virNetwork | None:
    """Return a network by name, None if there is none. Raises libvirtError."""
    try:
        return connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_NETWORK):
            return None
        raise


def _in_use(subnet: ipaddress.IPv4Network, user: str) -> Conflict:
    return Conflict(
        f"subnet {subnet} cannot be used: it overlaps {user}",
        hint="choose another --subnet, or leave it out: armvm finds a free one",
    )
