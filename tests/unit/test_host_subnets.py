"""Where armvm's own network goes: a subnet that nothing on the host uses."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from armvm.host.subnets import free_subnets, routes

ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    "tun0\t0080A8C0\t00000000\t0001\t0\t0\t0\t0080FFFF\t0\t0\t0\n"
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


def test_no_subnet_where_all_is_taken() -> None:
    assert list(free_subnets([IPv4Network("192.168.0.0/16")])) == []
