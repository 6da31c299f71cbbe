"""Where armvm's own network goes: a subnet that nothing on the host uses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from armvm.base.errors import ConfigError
from armvm.host.network.define import parse_subnet
from armvm.host.network.subnets import free_subnets, local_addresses, routes

ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    "tun0\t0080A8C0\t00000000\t0001\t0\t0\t0\t0080FFFF\t0\t0\t0\n"
)

#: OpenVPN's redirect-gateway def1.
VPN = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t0000000A\t00000000\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    "tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
    "tun0\t00000080\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
)


def test_routes_are_read_without_the_default_route() -> None:
    assert routes(ROUTES) == [IPv4Network("192.0.2.0/24"), IPv4Network("192.168.128.0/17")]


def test_lines_that_are_no_routes_are_left_out() -> None:
    assert routes("") == []
    assert routes("Iface\nodd line\n") == []


@pytest.mark.parametrize(
    ("taken", "first"),
    [
        ([], "192.168.128.0/24"),
        (["192.168.122.0/24"], "192.168.128.0/24"),
        (["192.168.128.0/24"], "192.168.129.0/24"),
        (["192.168.128.0/30"], "192.168.129.0/24"),
        (["192.168.128.0/18"], "192.168.192.0/24"),
    ],
)
def test_the_first_subnet_that_overlaps_nothing(taken: list[str], first: str) -> None:
    assert next(free_subnets(map(IPv4Network, taken))) == IPv4Network(first)


def test_a_vpns_default_routes_take_no_subnet() -> None:
    assert routes(VPN) == [IPv4Network("10.0.0.0/24")]
    assert next(free_subnets(routes(VPN))) == IPv4Network("192.168.128.0/24")


@pytest.mark.parametrize(
    ("mask", "kept"), [("000000C0", False), ("000000FE", False), ("000000FF", True)]
)
def test_a_route_counts_from_8_bits_on(mask: str, kept: bool) -> None:
    text = f"Iface\ntun0\t0000000A\t0\t3\t0\t0\t0\t{mask}\t0\t0\t0\n"
    assert bool(routes(text)) is kept


@pytest.mark.parametrize(
    ("taken", "first"),
    [
        (["192.168.0.0/16"], "10.0.0.0/24"),
        (["192.168.0.0/16", "10.0.0.0/24"], "10.1.0.0/24"),
        (["192.168.0.0/16", "10.0.0.0/9"], "10.128.0.0/24"),
        (["192.168.0.0/16", "10.0.0.0/8"], "172.16.0.0/24"),
        (["192.168.0.0/16", "10.0.0.0/8", "172.16.0.0/13"], "172.24.0.0/24"),
    ],
)
def test_the_other_private_ranges_come_next(taken: list[str], first: str) -> None:
    assert next(free_subnets(map(IPv4Network, taken))) == IPv4Network(first)


def test_no_subnet_where_all_is_taken() -> None:
    private = ["192.168.0.0/16", "10.0.0.0/8", "172.16.0.0/12"]
    assert list(free_subnets(map(IPv4Network, private))) == []


#: The beginning of /proc/net/fib_trie, and an address on the loopback interface.
TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.9.9.0/24 2 0 2
        |-- 10.9.9.9
           /32 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
Local:
        |-- 10.9.9.9
           /32 host LOCAL
"""


def test_the_hosts_own_addresses_are_read() -> None:
    assert local_addresses(TRIE) == [IPv4Address("10.9.9.9")]
    assert local_addresses("odd\n") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "invalid subnet 'x'"),
        ("10.5.0.0/33", "invalid subnet"),
        ("10.5.0.1/24", "is an address in the subnet 10.5.0.0/24"),
        ("10.0.0.0/7", "invalid subnet|an address in|out of range"),
        ("10.5.0.0/30", "out of range"),
        ("8.8.8.0/24", "not a range for private networks"),
        ("127.0.0.0/8", "not a range for private networks"),
        ("169.254.0.0/16", "not a range for private networks"),
        ("0.0.0.0/8", "not a range for private networks"),
        ("192.0.2.0/24", "not a range for private networks"),
        ("198.18.0.0/15", "not a range for private networks"),
        ("100.64.0.0/10", "not a range for private networks"),
        ("172.0.0.0/8", "not a range for private networks"),
        ("fd00::/64", "invalid subnet"),
    ],
)
def test_a_subnet_that_no_network_can_have(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_subnet(text)
    for private in ("10.5.0.0/24", "10.0.0.0/8", "172.31.255.0/24", "192.168.0.0/16"):
        assert str(parse_subnet(private)) == private
