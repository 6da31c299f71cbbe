"""Which subnet a network can have: one that nothing on the host uses. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

Subnet = ipaddress.IPv4Network

#: Where to look for a free subnet (RFC 1918), and how far apart the candidates are. libvirt's
#: default network is 192.168.122.0/24. In the larger ranges whole /16 networks are taken.
_CANDIDATES = (
    (Subnet("192.168.128.0/17"), 24),
    (Subnet("10.0.0.0/8"), 16),
    (Subnet("172.16.0.0/12"), 16),
)
#: A shorter route is a default route: a VPN has two of one bit, or leaves some networks out. A
#: network of one's own goes before it.
_SHORTEST_ROUTE = 8


def free_subnets(taken: Iterable[Subnet]) -> Iterator[Subnet]:
    """Return the /24 networks that overlap none of *taken*, one after another."""
    taken = list(taken)
    for area, step in _CANDIDATES:
        for part in area.subnets(new_prefix=step):
            candidate = Subnet((part.network_address, 24))
            if not any(candidate.overlaps(one) for one in taken):
                yield candidate


def routes(text: str) -> list[Subnet]:
    """Return the networks in the text of ``/proc/net/route``, default routes left out.

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
        if network.prefixlen >= _SHORTEST_ROUTE:
            found.append(network)
    return found
