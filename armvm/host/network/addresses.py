"""All addresses of a running machine, and their sources."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from armvm.host.connection import Domain
from armvm.host.network.networks import AGENT, LEASE, told_by

#: The sources in order: libvirt's DHCP leases, and the guest agent.
_SOURCES = (("lease", LEASE), ("agent", AGENT))


@dataclass(frozen=True, kw_only=True)
class Address:
    """An IPv4 or IPv6 address with its prefix's length; ``source`` is ``lease`` or ``agent``."""

    address: str
    prefix: int
    interface: str
    mac: str | None
    source: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.address).version


def all_addresses(domain: Domain) -> list[Address]:
    """Return the addresses from leases and the guest agent, each once, IPv4 first.

    Omits loopback and link-local addresses; empty if none are known.
    """
    found: dict[str, Address] = {}
    for source, flag in _SOURCES:
        for name, interface in told_by(domain, flag).items():
            for entry in interface["addrs"] or []:
                # The guest may send anything.
                try:
                    address = ipaddress.ip_address(entry["addr"])
                except ValueError:
                    continue
                if address.is_loopback or address.is_link_local:
                    continue
                one = Address(
                    address=str(address),
                    prefix=int(entry["prefix"]),
                    interface=name,
                    mac=interface["hwaddr"],
                    source=source,
                )
                found.setdefault(one.address, one)
    return sorted(found.values(), key=lambda one: one.version)
