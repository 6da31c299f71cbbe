"""armvm's own network: made by itself, an address for each machine, given back with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from armvm.host.network import reservations
from armvm.host.network.own_network import OWN_NETWORK
from tests.libvirt.world import World, virsh
from tests.support import fresh_name


def kept() -> dict[str, tuple[str, str]]:
    """Return each machine's reserved MAC and IP address, as libvirt has them."""
    document = etree.fromstring(virsh("net-dumpxml", "armvm"))
    return {
        one.get("name", ""): (one.get("mac", ""), one.get("ip", ""))
        for one in document.iterfind("ip/dhcp/host")
    }


def test_a_machine_has_an_address_as_long_as_it_exists(
    world: World, image: Path, name: str
) -> None:
    world.held(name, image)
    mac, address = kept()[name]
    assert mac == world.armvm("show", name, "--json").ok().json["mac"]
    assert address.startswith("192.168.")
    network = etree.fromstring(virsh("net-dumpxml", "armvm"))
    assert network.find("bridge").get("stp") == "off"  # type: ignore[union-attr]
    assert network.find("forward").get("mode") == "nat"  # type: ignore[union-attr]
    world.armvm("delete", "--yes", name).ok()
    assert name not in kept()


def test_a_stopped_network_is_started_with_the_machine(
    world: World, image: Path, name: str
) -> None:
    world.held(name, image)
    if any("vnet" in line for line in Path("/proc/net/dev").read_text().splitlines()):
        pytest.skip("other machines are on it")
    virsh("net-destroy", "armvm")
    world.armvm("start", name, "--no-wait").ok()
    assert "active:         yes" in virsh("net-info", "armvm").lower()


@pytest.fixture
def names(connection: Any) -> Iterator[list[str]]:
    """Names that machines may have, whose addresses are given back."""
    made = [fresh_name() for _ in range(4)]
    yield made
    for one in made:
        reservations.release(connection, OWN_NETWORK, "", one)


def test_addresses_that_are_reserved_at_once_differ(
    world: World, image: Path, name: str, names: list[str], connection: Any
) -> None:
    world.held(name, image)  # makes the network
    told: dict[str, str | None] = {}

    def reserve(index: int, machine: str) -> None:
        mac = f"52:54:00:fe:00:{index:02x}"
        told[machine] = reservations.reserve(connection, OWN_NETWORK, mac, machine)

    threads = [threading.Thread(target=reserve, args=pair) for pair in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(told.values())) == len(names)
    known = kept()
    assert {machine: known[machine][1] for machine in names} == told


def test_a_second_reservation_replaces_the_first(
    world: World, image: Path, name: str, names: list[str], connection: Any
) -> None:
    world.held(name, image)
    machine = names[0]
    first, second = "52:54:00:fe:01:01", "52:54:00:fe:01:02"
    reservations.reserve(connection, OWN_NETWORK, first, machine)
    address = reservations.reserve(connection, OWN_NETWORK, second, machine)
    assert kept()[machine] == ("52:54:00:fe:01:02", address)
    assert reservations.reserved(connection, OWN_NETWORK, second, machine) == address
