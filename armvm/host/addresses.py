"""All addresses of a running machine, and who says so."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import libvirt

from armvm.host.connection import Domain, is_code

#: Who is asked, in this order: what libvirt's DHCP server gave away, and the guest itself.
_SOURCES = (
    ("lease", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE),
    ("agent", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT),
)


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
    """Return the addresses that leases and the guest agent tell of, each once, IPv4 first.

    Left out are loopback and link-local ones; empty where nobody knows any.
    """
    found: dict[str, Address] = {}
    for source, flag in _SOURCES:
        try:
            interfaces = domain.interfaceAddresses(flag, 0)
        except libvirt.libvirtError as error:
            # No lease file, no agent, not running: there is no address to be had this way.
            if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                return []
            continue
        for name, interface in interfaces.items():
            for entry in interface["addrs"] or []:
                # What comes from a guest may be anything.
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
