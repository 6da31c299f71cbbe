"""All addresses of a running machine, and their sources."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from armvm.host.connection import Domain
from armvm.host.network.networks import AGENT, ARP, LEASE, address_in, told_by

#: The sources in order: libvirt's DHCP leases, the guest agent, and the host's ARP table.
_SOURCES = (("lease", LEASE), ("agent", AGENT), ("arp", ARP))


@dataclass(frozen=True, kw_only=True)
class Address:
    """An IPv4 or IPv6 address with its prefix's length; ``source`` is a name in _SOURCES."""

    address: str
    prefix: int
    interface: str
    mac: str | None
    source: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.address).version


def all_addresses(domain: Domain, macs: Sequence[str] = ()) -> list[Address]:
    """Return the addresses from all sources, each once: by the cards' order in *macs*, IPv4 first.

    Omits loopback and link-local addresses; empty if none are known.
    """
    found: dict[str, Address] = {}
    for source, flag in _SOURCES:
        for name, interface in told_by(domain, flag).items():
            for entry in interface["addrs"] or []:
                address = address_in(entry)
                if address is None or address.is_link_local:
                    continue
                one = Address(
                    address=str(address),
                    prefix=int(entry["prefix"]),
                    interface=name,
                    mac=interface["hwaddr"],
                    source=source,
                )
                found.setdefault(one.address, one)
    order = {mac: index for index, mac in enumerate(macs)}
    return sorted(
        found.values(), key=lambda one: (order.get(one.mac or "", len(order)), one.version)
    )
