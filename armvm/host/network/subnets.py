"""Find a subnet for a network: one that nothing on the host uses. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

Subnet = ipaddress.IPv4Network

#: The ranges for private networks (RFC 1918).
PRIVATE = tuple(map(Subnet, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
#: The ranges to search, and the distance of candidates. libvirt's default network is
#: 192.168.122.0/24. In the larger ranges networks often use a whole /16.
_CANDIDATES = (
    (Subnet("192.168.128.0/17"), 24),
    (Subnet("10.0.0.0/8"), 16),
    (Subnet("172.16.0.0/12"), 16),
)
#: A shorter prefix is a default route: a VPN may use two /1 routes, or leave some networks out. A
#: directly connected network takes precedence over it.
_SHORTEST_ROUTE = 8


def free_subnets(taken: Iterable[Subnet]) -> Iterator[Subnet]:
    """Yield the /24 networks that overlap none of *taken*."""
    taken = list(taken)
    for area, step in _CANDIDATES:
        for part in area.subnets(new_prefix=step):
            candidate = Subnet((part.network_address, 24))
            if not any(candidate.overlaps(one) for one in taken):
                yield candidate


def routes(text: str) -> list[Subnet]:
    """Return the networks in the text of ``/proc/net/route``, without default routes.

    Its columns (proc_net_route in proc(5)): interface, destination, gateway, …, mask as the
    eighth; addresses are little-endian words in hexadecimal.
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


def local_addresses(text: str) -> list[ipaddress.IPv4Address]:
    """Return the host's own addresses in the text of ``/proc/net/fib_trie``, each once.

    Each is on a line ``|-- ADDRESS`` before the line ``/32 host LOCAL``.
    """
    found: dict[ipaddress.IPv4Address, None] = {}
    last = ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["|--"] and len(words) == 2:
            last = words[1]
        elif words == ["/32", "host", "LOCAL"]:
            found[ipaddress.IPv4Address(last)] = None
    return [address for address in found if not address.is_loopback]
