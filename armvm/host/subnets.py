"""Which subnet a network can have: one that nothing on the host uses. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

#: Where to look for a free subnet; libvirt's default network is 192.168.122.0/24.
_CANDIDATES = ipaddress.IPv4Network("192.168.128.0/17")

Subnet = ipaddress.IPv4Network


def free_subnets(taken: Iterable[Subnet]) -> Iterator[Subnet]:
    """Return the /24 networks that overlap none of *taken*, one after another."""
    taken = list(taken)
    for candidate in _CANDIDATES.subnets(new_prefix=24):
        if not any(candidate.overlaps(one) for one in taken):
            yield candidate


def routes(text: str) -> list[Subnet]:
    """Return the networks in the text of ``/proc/net/route``, the default route left out.

    Its columns (proc_net_route in proc(5)): interface, destination, gateway, …, mask as the
    eighth; addresses are the hexadecimal of a little-endian word.
    """
    found = []
    for line in text.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 8:
            continue
        address, mask = (
            ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(columns[index]), "little"))
            for index in (1, 7)
        )
        network = ipaddress.IPv4Network(f"{address}/{mask}", strict=False)
        if network.prefixlen:
            found.append(network)
    return found
