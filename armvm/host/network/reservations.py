"""Addresses that a network's DHCP server keeps for machines.

armvm reserves one for each machine on its own network, and on any network if the user asks for an
address. On other networks armvm changes only the entries of its machines' MAC addresses.

Source: libvirt's formatnetwork.html, and virNetworkUpdate.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Iterator

import libvirt
from lxml import etree

from armvm.base.errors import ConfigError, Conflict, HostError
from armvm.base.signals import shielded
from armvm.host.connection import Connection, errors
from armvm.host.network.card import cards_in
from armvm.host.network.define import find, is_marked
from armvm.host.network.own_network import OWN_NETWORK
from armvm.host.network.subnets import Subnet
from armvm.host.xml import parse, select, to_text

#: How often to retry if another process has taken the same address.
_TRIES = 20
#: What MAC addresses begin with that QEMU, libvirt and armvm generate.
_QEMU = "52:54:00:"
#: Offered as examples: addresses at the end of a subnet are rarely leased.
_EXAMPLE = -50


def reserve(
    connection: Connection, network_name: str, mac: str, name: str, address: str | None = None
) -> str | None:
    """Reserve an address for a card of the machine *name*, and return it.

    *address* None: a free one; returns None if the network lacks DHCP. Raises HostError if all
    addresses are taken, and as `check` does if *address* cannot be had.
    """
    with errors(f"reserving an address for {name}"):
        network = connection.networkLookupByName(network_name)
        for attempt in range(_TRIES):
            document = parse(network.XMLDesc(0))
            for old in _entries(document, network_name, mac, name):
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, old)
            if address is not None:
                _assert_free(connection, network, network_name, address, name, mac=mac)
                free: str | None = address
            elif select(document, "ip/dhcp/range"):
                # While another machine's lease lasts, dnsmasq does not assign a reserved address.
                taken = {one.get("ip") for one in select(document, "ip/dhcp/host")}
                taken |= {str(lease["ipaddr"]) for lease in leases(network)}
                free = next((one for one in _addresses(document) if one not in taken), None)
            else:
                return None
            if free is None:
                if not _drop_stale(connection, network, document):
                    break
                continue
            host = etree.Element("host", mac=mac, name=name, ip=free)
            try:
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, host)
                return free
            except libvirt.libvirtError as error:
                # Another process took it in between; libvirt reports no specific error code.
                if "existing dhcp host entry" not in str(error):
                    raise
                if address is not None:
                    raise Conflict(
                        f"{address} cannot be reserved for {name} on the network {network_name}: "
                        "another reservation has this address or this name",
                        hint=f"list them: armvm network show {network_name}",
                    ) from error
                if attempt + 1 == _TRIES:
                    raise
    raise HostError(
        f"no free address on the network {network_name}",
        hint="delete machines ('armvm list'), or use --network NAME",
    )


def check(connection: Connection, network_name: str, address: str, name: str) -> str | None:
    """Check that *address* can be reserved for a new machine *name*.

    Returns the MAC address that the machine needs, None if any will do: while the lease of a
    machine that is gone lasts, dnsmasq assigns the address only to that machine's card.

    Raises ConfigError for an address that no machine can have on this network, Conflict for one
    that another machine has. The network need not exist yet.
    """
    with errors(f"checking the address {address}"):
        network = find(connection, network_name)
        if network is None:
            return None
        mac = _left(connection, network, address)
        _assert_free(connection, network, network_name, address, name, mac=mac, change=False)
        return mac


def release(connection: Connection, network_name: str, mac: str, name: str) -> None:
    """Release the address of a machine's card; does nothing if it has none."""
    with errors(f"releasing the address of {name}"):
        network = find(connection, network_name)
        if network is None:
            return
        for old in _entries(parse(network.XMLDesc(0)), network_name, mac, name):
            with contextlib.suppress(libvirt.libvirtError):  # another process released it first
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, old)


def rename(connection: Connection, network_name: str, mac: str, old: str, new: str) -> None:
    """Keep the reserved address of a machine's card under the machine's new name."""
    with shielded(), errors(f"renaming the address reservation of {new}"):
        network = find(connection, network_name)
        document = None if network is None else parse(network.XMLDesc(0))
        for entry in [] if document is None else _entries(document, network_name, mac, old):
            # In one step: another process could take an address that is free for a moment.
            entry.set("name", new)
            _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_MODIFY, entry)


def reserved(connection: Connection, network_name: str, mac: str, name: str) -> str | None:
    """Return the address reserved for a machine's card; None if there is none."""
    with errors(f"looking for the address of {name}"):
        network = find(connection, network_name)
        if network is None:
            return None
        found = _entries(parse(network.XMLDesc(0)), network_name, mac, name)
    return found[0].get("ip") if found else None


def leases(network: libvirt.virNetwork) -> list[dict[str, object]]:
    """Return a network's DHCP leases that have not expired; [] if it is not running.

    Raises libvirt.libvirtError.
    """
    try:
        return [dict(lease) for lease in network.DHCPLeases(None, 0)]
    except libvirt.libvirtError:
        if network.isActive():
            raise
        return []


def _assert_free(
    connection: Connection,
    network: libvirt.virNetwork,
    network_name: str,
    text: str,
    name: str,
    *,
    mac: str | None,
    change: bool = True,
) -> None:
    """Raise an error if the address *text* cannot be reserved for the machine *name*.

    The machine's card has the address *mac*. With *change*, releases the address if it is reserved
    for a machine that is gone.
    """
    document = parse(network.XMLDesc(0))
    address = ipaddress.IPv4Address(text)
    served = _served(document)
    if not served:
        raise ConfigError(
            f"--ip cannot be used on the network {network_name}: libvirt's DHCP server does not "
            "serve it",
            hint="use another network (armvm network list), or set the address in the guest: "
            "--network-config FILE",
        )
    subnet = next((one for one in served if address in one), None)
    if subnet is None:
        places = ", ".join(map(str, served))
        raise ConfigError(
            f"{address} is outside the network {network_name} ({places})",
            hint=f"use an address in it, for example --ip {_example(next(iter(served)))}",
        )
    if address in (subnet[0], subnet[-1]):
        what = "network's own" if address == subnet[0] else "broadcast"
        raise ConfigError(
            f"{address} is the {what} address of {subnet}",
            hint=f"use another one, for example --ip {_example(subnet)}",
        )
    if address == served[subnet]:
        raise ConfigError(
            f"{address} is the host's own address on the network {network_name}",
            hint=f"use another one, for example --ip {_example(subnet)}",
        )
    for entry in select(document, "ip/dhcp/host"):
        owner = entry.get("name") or entry.get("mac") or "another machine"
        if entry.get("ip") != text or (network_name == OWN_NETWORK and owner == name):
            continue
        if _is_stale(connection, network_name, document, entry):
            if change:
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, entry)
            continue
        raise Conflict(
            f"{address} is reserved for {owner} on the network {network_name}",
            hint="choose another address; list them: armvm network show " + network_name,
        )
    holder, until = _holder(network, text)
    if holder not in (None, mac):
        machine = _machine_of(connection, str(holder))
        clock = time.strftime("%H:%M:%S", time.localtime(until))
        raise Conflict(
            f"{address} is in use on the network {network_name}: "
            + (f"{machine} has it" if machine else f"{holder} leased it until {clock}"),
            hint="choose another address; list them: armvm network show " + network_name,
        )


def _holder(network: libvirt.virNetwork, address: str) -> tuple[str | None, int]:
    """Return the MAC address to which an address is leased, None without, and until when."""
    for lease in leases(network):
        if lease["ipaddr"] == address:
            return str(lease["mac"]), int(str(lease["expirytime"]))
    return None, 0


def _left(connection: Connection, network: libvirt.virNetwork, address: str) -> str | None:
    """Return the MAC address of a machine that is gone, and to which an address is still leased."""
    holder, _ = _holder(network, address)
    if holder is None or not holder.startswith(_QEMU):
        return None
    return None if _machine_of(connection, holder) else holder


def _machine_of(connection: Connection, mac: str) -> str | None:
    """Return the name of the domain with a card of this MAC address."""
    for domain in connection.listAllDomains(0):
        with contextlib.suppress(libvirt.libvirtError):  # removed in between
            if any(card.mac == mac for card in cards_in(parse(domain.XMLDesc(0)))):
                return str(domain.name())
    return None


def _served(document: etree._Element) -> dict[Subnet, ipaddress.IPv4Address]:
    """Return the IPv4 subnets with a DHCP server, and the host's address in each."""
    found = {}
    for ip in select(document, "ip[dhcp and (not(@family) or @family='ipv4')]"):
        width = ip.get("prefix") or ip.get("netmask") or "24"
        with contextlib.suppress(ValueError):
            own = ipaddress.IPv4Interface(f"{ip.get('address')}/{width}")
            found[own.network] = own.ip
    return found


def _example(subnet: Subnet) -> ipaddress.IPv4Address:
    return subnet[_EXAMPLE if subnet.num_addresses > -2 * _EXAMPLE else -2]


def _addresses(document: etree._Element) -> Iterator[str]:
    """Yield the addresses that the DHCP server assigns."""
    for one in select(document, "ip[not(@family) or @family='ipv4']/dhcp/range"):
        first, last = (int(ipaddress.IPv4Address(one.get(end, ""))) for end in ("start", "end"))
        for number in range(first, last + 1):
            yield str(ipaddress.IPv4Address(number))


def _entries(
    document: etree._Element, network_name: str, mac: str, name: str
) -> list[etree._Element]:
    """Return a card's entries; on armvm's own network also those of the machine's name."""
    return [
        one
        for one in select(document, "ip/dhcp/host")
        if one.get("mac") == mac or (network_name == OWN_NETWORK and one.get("name") == name)
    ]


def _drop_stale(
    connection: Connection, network: libvirt.virNetwork, document: etree._Element
) -> bool:
    """Release the addresses of machines that other tools have removed; return whether any was."""
    names = {one.name() for one in connection.listAllDomains(0)}
    dropped = False
    for one in select(document, "ip/dhcp/host"):
        if one.get("name") not in names and _is_stale(connection, network.name(), document, one):
            with contextlib.suppress(libvirt.libvirtError):
                _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, one)
                dropped = True
    return dropped


def _is_stale(
    connection: Connection, network_name: str, document: etree._Element, entry: etree._Element
) -> bool:
    """Return whether a network of armvm's keeps an address for a machine that is gone.

    Users may add entries for other cards, and leave out the name.
    """
    if network_name != OWN_NETWORK and not is_marked(document):
        return False
    name, mac = entry.get("name"), (entry.get("mac") or "").lower()
    if not name or not mac.startswith(_QEMU) or _machine_of(connection, mac):
        return False
    return name not in {one.name() for one in connection.listAllDomains(0)}


def _update(network: libvirt.virNetwork, command: int, host: etree._Element) -> None:
    flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG if network.isPersistent() else 0
    if network.isActive():
        flags |= libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
    section = libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST
    network.update(command, section, -1, to_text(host), flags)
