"""The user's own network configuration: what is accepted, and what is said about the rest."""

from __future__ import annotations

import pytest
import yaml

from armvm.base.errors import ConfigError
from armvm.guest.cloudinit.documents import compose
from armvm.guest.cloudinit.network_config import MAX_BYTES, read_network_config, static_address
from armvm.settings.machine import Machine
from armvm.settings.system import OperatingSystem
from tests.unit.host_tools import IDENTITY

STATIC = """
network:
  version: 2
  ethernets:
    lan:
      match: {name: "e*"}
      addresses: [fd00::5/64, 192.168.128.50/24]
      routes: [{to: default, via: 192.168.128.1}]
      nameservers: {addresses: [192.168.128.1]}
"""


def test_the_document_is_taken_whole_in_place_of_ours() -> None:
    document = read_network_config(STATIC)
    assert document["version"] == 2
    for system in (None, OperatingSystem(distro="fedora", version="43")):
        machine = Machine(name="m", network_config=STATIC)
        text = compose(machine, IDENTITY, "debian", system=system).network_config
        assert text is not None
        assert yaml.safe_load(text) == document
    assert "network_config" not in machine.summary()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (STATIC, "192.168.128.50/24"),
        ("version: 2\nethernets: {a: {dhcp4: true, addresses: [10.0.0.5/8]}}", None),
        ("version: 2\nethernets: {a: {dhcp6: true}}", None),
        ("version: 2\nethernets: {a: }\nbridges: {b: {addresses: [{10.0.0.5/8: {}}]}}",
         "10.0.0.5/8"),
    ],
)  # fmt: skip
def test_a_static_address_is_known(text: str, address: str | None) -> None:
    assert static_address(read_network_config(text)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the document.*expected a mapping"),
        ("[]", "expected a mapping"),
        ("ethernets: {}", "expected version: 2"),
        ("version: 1\nconfig: []", "expected version: 2, not '1'"),
        ("version: true", "expected version: 2"),
        ("version: 2", "it has no interface"),
        ("version: 2\nethernets: {a: {}}\nnetwork: {}", "unknown key 'network'"),
        ("version: 2\nether: {a: {}}", "unknown key 'ether'"),
        ("version: 2\nethernets: [a]", "'ethernets': expected a mapping"),
        ("version: 2\nethernets: {1: {}}", "'ethernets': expected a mapping"),
        ("version: 2\nethernets: {a: 5}", "'ethernets.a': expected a mapping"),
        ("version: 2\nethernets: {a: {dhcp4: maybe}}", "a.dhcp4: expected true or false"),
        ("version: 2\nethernets: {a: {addresses: 10.0.0.1/8}}", "addresses: expected a list"),
        ("version: 2\nethernets: {a: {addresses: [10.0.0.1]}}", "invalid address '10.0.0.1'"),
        ("version: 2\nethernets: {a: {addresses: [10.0.0.300/8]}}", "invalid address"),
        ("version: 2\nrenderer: x\nethernets: {a: {}}", "renderer: expected networkd"),
        ("version: 2\nethernets: {a: &x {}, b: *x}", "aliases are not supported"),
        ("a: b: c", "invalid YAML: line 1"),
        ("version: 0x" + "f" * 5000, "line 1, column 10: integer out of range"),
        ('a: !!int ""', "line 1, column 4: invalid int"),
        ("a: [" * 5000, "invalid YAML"),
        ("#" * (MAX_BYTES + 1), "larger than 64 KiB"),
        ("version: 2\nethernets: {a: {x: !!python/object:os.system {}}}", "invalid YAML"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        read_network_config(text)
    assert caught.value.message.startswith("--network-config")
    assert caught.value.message.isprintable()
