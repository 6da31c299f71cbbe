"""More networks: made, shown and deleted; several per machine; addresses that the user names."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lxml import etree

from tests.libvirt.dhcp_client import card
from tests.libvirt.world import World, virsh
from tests.schemas import check
from tests.support import fresh_name


@contextmanager
def made(world: World) -> Iterator[str]:
    """Make a network, and remove it whatever became of it."""
    name = fresh_name("armvm-net")
    world.armvm("network", "create", name).ok()
    yield name
    virsh("net-destroy", name, check=False)
    virsh("net-undefine", name, check=False)


@pytest.fixture(scope="module")
def net(world: World) -> Iterator[str]:
    """A network of armvm's that several tests use."""
    with made(world) as name:
        yield name


@pytest.fixture
def spare(world: World) -> Iterator[str]:
    """A network of armvm's that a test may change."""
    with made(world) as name:
        yield name


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge of the host's that no network of libvirt's knows."""
    name = fresh_name("abr")[:15]
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


def subnet_of(world: World, name: str) -> ipaddress.IPv4Network:
    found = check("network show", world.armvm("network", "show", name, "--json").ok().json)
    return ipaddress.IPv4Network(found["subnet"])


def cards(name: str) -> list[etree._Element]:
    return etree.fromstring(virsh("dumpxml", name)).findall("devices/interface")


def test_a_network_is_made_listed_and_deleted(world: World) -> None:
    name = fresh_name("armvm-net")
    made = world.armvm("network", "create", name, "--isolated", "--json").ok()
    facts = check("network create", made.json)
    assert (facts["mode"], facts["active"], facts["autostart"]) == ("isolated", True, True)
    assert facts["own"]
    try:
        listed = check("network list", world.armvm("network", "list", "--json").ok().json)
        (row,) = [one for one in listed if one["name"] == name]
        assert row == {key: facts[key] for key in row}
        assert name in world.armvm("network", "list").ok().out
        world.armvm("network", "create", name).failed(5)
        again = world.armvm("network", "create", fresh_name("x"), "--subnet", facts["subnet"])
        assert f"it overlaps the network {name}" in again.failed(5).err
        world.armvm("network", "delete", name).failed(2)  # no terminal to ask
    finally:
        world.armvm("network", "delete", name, "--yes").ok()
    assert name not in virsh("net-list", "--all", "--name").split()
    assert "not found" in world.armvm("network", "delete", name, "--yes").failed(4).err


def test_a_name_with_white_space_is_quoted(world: World) -> None:
    name = fresh_name("armvm net")
    try:
        told = world.armvm("network", "create", name, "--isolated").ok().out
        assert f"armvm create --network '{name}'" in told
    finally:
        world.armvm("network", "delete", name, "--yes").ok()


def test_a_subnet_that_the_host_uses_is_refused(world: World, bridge: str) -> None:
    name = fresh_name("armvm-net")
    subprocess.run(["ip", "address", "add", "10.213.7.1/32", "dev", bridge], check=True)
    told = world.armvm("network", "create", name, "--subnet", "10.213.7.0/24").failed(5).err
    assert "it overlaps the host's own address 10.213.7.1" in told
    subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
    subprocess.run(["ip", "route", "add", "10.214.0.0/16", "dev", bridge], check=True)
    told = world.armvm("network", "create", name, "--subnet", "10.214.9.0/24").failed(5).err
    assert "it overlaps the host's route to 10.214.0.0/16" in told
    for wrong in ("10.5.0.1/24", "8.8.8.0/24", "x"):
        world.armvm("network", "create", name, "--subnet", wrong).failed(3)
    for odd in ("user", "bridge=x", "a/b", "a,b"):
        world.armvm("network", "create", odd).failed(3)
    assert name not in virsh("net-list", "--all", "--name").split()


@pytest.mark.slow
def test_networks_of_others_stay(world: World, spare: str) -> None:
    text = virsh("net-dumpxml", spare)
    document = etree.fromstring(text)
    document.remove(document.find("metadata"))  # type: ignore[arg-type]
    path = Path("/tmp") / f"{spare}.xml"
    path.write_bytes(etree.tostring(document))
    try:
        virsh("net-define", path)
        virsh("net-destroy", spare)
    finally:
        path.unlink()
    told = world.armvm("network", "delete", spare, "--yes").failed(5).err
    assert f"virsh net-undefine {spare}" in told


def test_a_network_in_use_stays(world: World, image: Path, name: str, net: str) -> None:
    world.held(name, image, "--network", net)
    told = world.armvm("network", "delete", net, "--yes").failed(5).err
    assert f"in use by {name}" in told
    assert world.armvm("network", "show", net, "--json").ok().json["machines"] == [name]


def test_an_address_is_reserved_and_given_back(
    world: World, image: Path, name: str, net: str
) -> None:
    address = str(subnet_of(world, net)[77])
    world.held(name, image, "--network", net, "--ip", address)
    shown = check("show", world.armvm("show", name, "--json").ok().json)
    assert (shown["settings"]["ip"], shown["network"]) == (address, net)
    facts = check("ip", world.armvm("ip", name, "--json").ok().json)
    assert facts["reserved"] == address
    kept = world.armvm("network", "show", net, "--json").ok().json["reservations"]
    assert kept == [{"address": address, "mac": shown["mac"], "name": name}]
    other = fresh_name()
    command = ("create", "--name", other, "--image", image, "--no-start", "--network", net)
    told = world.armvm(*command, "--ip", address).failed(5).err
    assert f"{address} is reserved for {name}" in told
    assert world.traces(other) == []
    clone = world.armvm("clone", name, other, "--ip", address).failed(5).err
    assert f"reserved for {name}" in clone
    try:
        second = str(subnet_of(world, net)[78])
        world.armvm("clone", name, other, "--ip", second).ok()
        assert world.armvm("ip", other, "--json").ok().json["reserved"] == second
        renamed = fresh_name()
        world.armvm("rename", other, renamed).ok()
        other = renamed
        assert world.armvm("ip", other, "--json").ok().json["reserved"] == second
    finally:
        world.armvm("delete", "--yes", other).ok()
    world.armvm("delete", "--yes", name).ok()
    assert world.armvm("network", "show", net, "--json").ok().json["reservations"] == []


def test_the_dhcp_server_assigns_the_address_inside_and_outside_its_range(
    world: World, image: Path, name: str, spare: str
) -> None:
    """A real dnsmasq, asked as the machine's card asks it."""
    subnet = subnet_of(world, spare)
    virsh("net-destroy", spare)
    document = etree.fromstring(virsh("net-dumpxml", spare))
    document.find("ip/dhcp/range").set("start", str(subnet[100]))  # type: ignore[union-attr]
    path = Path("/tmp") / f"{spare}.xml"
    path.write_bytes(etree.tostring(document))
    virsh("net-define", path)
    path.unlink()
    outside, inside = str(subnet[50]), str(subnet[150])
    world.held(name, image, "--network", spare, "--ip", outside)  # the network is not running
    virsh("net-start", spare)
    facts = world.armvm("network", "show", spare, "--json").ok().json
    mac = world.armvm("show", name, "--json").ok().json["mac"]
    with card(facts["bridge"], mac) as client:
        assert client.lease() == outside
    (lease,) = check("network show", world.armvm("network", "show", spare, "--json").ok().json)[
        "leases"
    ]
    assert (lease["address"], lease["mac"], lease["machine"]) == (outside, mac, name)
    world.armvm("delete", "--yes", name).ok()
    # The lease of the deleted machine lasts: the next machine with its address gets its card too.
    world.held(name, image, "--network", spare, "--ip", outside)
    assert world.armvm("show", name, "--json").ok().json["mac"] == mac
    world.armvm("delete", "--yes", name).ok()
    world.held(name, image, "--network", spare, "--ip", inside)
    mac = world.armvm("show", name, "--json").ok().json["mac"]
    with card(facts["bridge"], mac) as client:
        assert client.lease() == inside
    with card(facts["bridge"], "02:00:00:00:00:07") as stranger:
        taken = stranger.lease()
    other = ("create", "--image", image, "--no-start", "--network", spare, "--ip", taken)
    told = world.armvm(*other).failed(5).err
    assert f"{taken} is in use on the network {spare}: 02:00:00:00:00:07 leased it until" in told


@pytest.mark.slow
def test_addresses_that_no_machine_can_have(world: World, image: Path, net: str) -> None:
    name, subnet = fresh_name(), subnet_of(world, net)
    command = ("create", "--name", name, "--image", image, "--no-start", "--network", net)
    for at, why in ((0, "network's own address"), (1, "the host's own"), (-1, "broadcast")):
        assert why in world.armvm(*command, "--ip", str(subnet[at])).failed(3).err
    assert world.traces(name) == []


@pytest.mark.slow
def test_what_ip_cannot_be_used_with(world: World, image: Path, net: str, bridge: str) -> None:
    subnet = subnet_of(world, net)
    inside = str(subnet[60])
    command = ("create", "--image", image, "--no-start")
    for network, told in (
        (net, f"10.255.255.1 is outside the network {net}"),
        ("user", "cannot be used with user networking"),
        (f"bridge={bridge}", f"cannot be used with bridge={bridge}"),
    ):
        address = "10.255.255.1" if network == net else inside
        refused = world.armvm(*command, "--network", network, "--ip", address)
        assert told in refused.failed(3).err
    many = world.armvm(*command, "--network", net, "--ip", inside, "--count", "2")
    assert "--ip cannot be used with --count" in many.failed(2).err


def test_a_machine_has_a_card_for_each_network(
    world: World, image: Path, name: str, net: str, bridge: str
) -> None:
    world.held(name, image, "--network", "armvm", "--network", net, "--network", f"bridge={bridge}")
    first, second, third = cards(name)
    assert first.find("source").get("network") == "armvm"  # type: ignore[union-attr]
    assert second.find("source").get("network") == net  # type: ignore[union-attr]
    assert third.get("type") == "bridge"
    shown = check("show", world.armvm("show", name, "--json").ok().json)
    assert shown["networks"] == ["armvm", net, f"bridge={bridge}"]
    assert (shown["network"], shown["settings"]["network"]) == (
        "armvm",
        ",".join(shown["networks"]),
    )
    assert f"armvm,{net},bridge={bridge}" in world.armvm("list").ok().out
    world.armvm("start", name, "--no-wait").ok()
    assert len({card.find("mac").get("address") for card in cards(name)}) == 3  # type: ignore[union-attr]
    assert [card.find("target").get("dev") is not None for card in cards(name)] == [True] * 3  # type: ignore[union-attr]


def test_devices_are_checked(world: World, image: Path, bridge: str, net: str) -> None:
    command = ("create", "--image", image, "--no-start")
    told = world.armvm(*command, "--network", "bridge=nothere0").failed(4).err
    assert "network interface nothere0 not found on the host" in told
    assert bridge in told
    own = world.armvm("network", "show", net, "--json").ok().json["bridge"]
    told = world.armvm(*command, "--network", f"bridge={own}").failed(3).err
    assert f"is the bridge of the network {net}" in told
    for device, why in (("lo", "loopback"), ("eth0", "not a bridge")):
        if Path(f"/sys/class/net/{device}").exists():
            assert why in world.armvm(*command, "--network", f"bridge={device}").failed(3).err
    told = world.armvm(*command, "--network", f"macvtap={bridge}").failed(3).err
    assert "cannot be a machine's first network" in told


@pytest.mark.slow
def test_macvtap_starts_and_says_its_limits(world: World, image: Path, name: str, net: str) -> None:
    device = fresh_name("avt")[:15]
    subprocess.run(["ip", "link", "add", device, "type", "veth"], check=True)
    try:
        told = world.held(name, image, "--network", net, "--network", f"macvtap={device}").err
        assert "the host cannot reach the machine over macvtap" in told
        world.armvm("start", name, "--no-wait").ok()
        assert cards(name)[1].get("type") == "direct"
        world.armvm("stop", "--force", name).ok()
    finally:
        subprocess.run(["ip", "link", "delete", device], check=True)


@pytest.mark.slow
def test_a_network_configuration_is_in_the_seed(
    world: World, image: Path, name: str, net: str, tmp_path: Path
) -> None:
    subnet = subnet_of(world, net)
    path = tmp_path / "net.yaml"
    path.write_text(
        "network:\n  version: 2\n  ethernets:\n    lan:\n      match: {name: 'e*'}\n"
        f"      addresses: [{subnet[9]}/24]\n"
    )
    world.held(name, image, "--network", net, "--network-config", path)
    assert str(subnet[9]) in world.armvm("explain", "seed", name).ok().out
    shown = world.armvm("show", name, "--json").ok().json
    assert shown["settings"]["address"] == f"{subnet[9]}/24"
    command = ("create", "--image", image, "--no-start", "--network-config", path)
    assert "with user networking" in world.armvm(*command, "--network", "user").failed(3).err
    assert "with --count" in world.armvm(*command, "--count", "2").failed(2).err
    path.write_text("version: 1")
    assert "expected version: 2" in world.armvm(*command).failed(3).err
    world.armvm("create", "--network-config", tmp_path / "none").failed(4)
