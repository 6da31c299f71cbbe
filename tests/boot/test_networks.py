"""Real guests on several networks, with the address that the user names, or their own netplan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.conftest import BOOT_TIMEOUT
from tests.libvirt.world import virsh
from tests.support import armvm, fresh_name

#: Each boots an image cold.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def isolated() -> Iterator[tuple[str, str]]:
    """An isolated network, and the first three bytes of its addresses."""
    name = fresh_name("armvm-net")
    made = armvm("network", "create", name, "--isolated", "--json").ok().json
    yield name, made["subnet"].rpartition(".")[0]
    virsh("net-destroy", name, check=False)
    virsh("net-undefine", name, check=False)


def free_address() -> str:
    """Return an address of armvm's network that nothing has, outside the usual ones."""
    shown = armvm("network", "show", "armvm", "--json").ok().json
    taken = {one["address"] for one in shown["reservations"] + shown["leases"]}
    prefix = shown["subnet"].rpartition(".")[0]
    return next(ip for last in range(200, 250) if (ip := f"{prefix}.{last}") not in taken)


def create(name: str, image: Path, *options: str | Path) -> None:
    armvm(
        *("create", "--name", name, "--image", image, "--preset", "minimal", "--mem", "1G"),
        *("--timeout", str(BOOT_TIMEOUT), *options),
        timeout=BOOT_TIMEOUT + 120,
    ).ok()


def addresses(name: str) -> list[str]:
    return [one["address"] for one in armvm("ip", name, "--json").ok().json["addresses"]]


def test_a_golden_of_two_networks_gives_clones_with_addresses_of_choice(
    debian_image: Path, name: str, isolated: tuple[str, str]
) -> None:
    net, prefix = isolated
    golden = fresh_name("armvm-golden")
    both = ("--network", "armvm", "--network", net)
    armvm(
        *("golden", "create", golden, "--preset", "minimal", "--mem", "1G", *both),
        *("--image", debian_image, "--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 300,
    ).ok()
    try:
        address = free_address()
        armvm("create", "--from", golden, "--name", name, "--ip", address).ok()
        assert armvm("ip", name).ok().out.splitlines()[0] == address
        assert armvm("show", name, "--json").ok().json["ssh"]["host"] == address
        told = armvm("ssh", name, "--", "ip -4 -o address").ok().out
        assert f" {address}/" in told
        assert f" {prefix}." in told, "the second card has an address too"
        taken = armvm("create", "--name", fresh_name(), "--ip", address, "--image", debian_image)
        assert f"{address} is reserved for {name}" in taken.failed(5).err
        # Its lease outlives it: dnsmasq keeps the address for that card.
        armvm("delete", "--yes", name).ok()
        armvm("create", "--from", golden, "--name", name, "--ip", address).ok()
        assert armvm("ip", name).ok().out.splitlines()[0] == address
        refused = armvm("golden", "export", golden, f"/tmp/{golden}").failed(5).err
        assert "it has 2 networks" in refused
    finally:
        armvm("delete", "--yes", name)
        armvm("golden", "delete", "--yes", golden).ok()


def test_a_network_configuration_of_the_users_own(
    debian_image: Path, name: str, isolated: tuple[str, str], tmp_path: Path
) -> None:
    """A static address: the host learns it from the document, before any agent answers."""
    net, prefix = isolated
    path = tmp_path / "net.yaml"
    path.write_text(
        "network:\n  version: 2\n  ethernets:\n    lan:\n      match: {name: 'e*'}\n"
        f"      addresses: [{prefix}.9/24]\n"
    )
    create(name, debian_image, "--network", net, "--network-config", path)
    assert addresses(name) == [f"{prefix}.9"]
    assert armvm("ssh", name, "--", "hostname").ok().out.strip() == name
