"""The other route and the other kind of network: a save image, clones on armvm's own network.

tests.remote makes and uses such a golden for every change.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from tests.boot.conftest import POOL, leftovers, reserved
from tests.boot.test_warm import (
    CLONE_TIMEOUT,
    assert_all_differ,
    clone,
    identity,
    made_clones,
)
from tests.libvirt.world import virsh
from tests.support import armvm

pytestmark = pytest.mark.slow
#: Where the version stands in a save image's header.
VERSION_AT = 16


@pytest.fixture(scope="module")
def clones(saved: str) -> list[dict[str, Any]]:
    """Three clones."""
    return made_clones(saved, 3)


def test_the_golden_says_how_it_was_saved(saved: str) -> None:
    shown = armvm("golden", "show", saved, "--json").ok().json
    assert (shown["route"], shown["shape"]["network"]) == ("save-image", "libvirt")
    assert reserved(saved) is None, "a golden needs no address"
    armvm("golden", "verify", saved).ok()


def test_three_clones_and_their_golden_differ_in_every_item(
    saved: str, clones: list[dict[str, Any]]
) -> None:
    born = armvm("golden", "show", saved, "--json").ok().json
    told = [identity(one["name"]) for one in clones]
    assert_all_differ(told)
    addresses = [one["ssh"]["host"] for one in clones]
    cards = [tuple(facts["mac"]) for facts in told]
    for values in (addresses, cards):
        assert len(set(values)) == len(clones)
    for facts, one in zip(told, clones, strict=True):
        assert facts["hostname"] == one["name"] != saved
        assert facts["machine_id"] == one["uuid"].replace("-", "")
        assert one["host_key"] != born["host_key"]
        assert facts["mac"] == [one["mac"]] != [born["mac"]]
        assert reserved(one["name"]) == (one["mac"], one["ssh"]["host"])
        assert one["clock"] < 0.5


def test_the_definition_and_the_copy_of_the_memory(clones: list[dict[str, Any]]) -> None:
    one = clones[0]
    for how in ((), ("--inactive",)):
        text = virsh("dumpxml", *how, one["name"])
        assert "qemu:" not in text
    assert not (POOL / f"{one['name']}.memory").exists()


def test_clones_reach_each_other(clones: list[dict[str, Any]]) -> None:
    first, second = clones[:2]
    address = ipaddress.ip_address(second["ssh"]["host"])
    speak = f"exec 3<>/dev/tcp/{address}/22; head -c 7 <&3"
    answer = armvm("ssh", first["name"], "--", f"timeout 30 bash -c '{speak}'")
    assert answer.ok().out.strip() == "SSH-2.0"


def test_a_remote_connection_makes_clones_too(
    saved: str, name: str, tmp_path: Path, clones: list[dict[str, Any]]
) -> None:
    """libvirt's tunnel of one's own choice, which ends on this host: files are out of reach."""
    tunnel = tmp_path / "tunnel"
    tunnel.write_text("#!/bin/sh\nexec virt-ssh-helper qemu:///system\n")
    tunnel.chmod(0o755)
    far = ("--connect", f"qemu+ext:///system?command={tunnel}")
    done = armvm("create", "--from", saved, "--name", name, *far, timeout=CLONE_TIMEOUT).ok()
    assert "created from golden" in done.err
    assert armvm("ssh", name, "--", "hostname").ok().out.strip() == name


def test_a_save_image_of_an_unknown_version_boots_cold_and_says_so(saved: str, name: str) -> None:
    image = POOL / f"{saved}.memory"

    def write(version: int) -> None:
        with image.open("r+b") as file:
            file.seek(VERSION_AT)
            file.write(version.to_bytes(4, "little"))

    try:
        write(3)
        done = clone(saved, name, "--no-wait").ok()
        (line,) = [one for one in done.err.splitlines() if "falling back to a cold boot" in one]
        assert "version 3" in line
        armvm("golden", "verify", saved).failed(6)
    finally:
        write(2)
    armvm("golden", "verify", saved).ok()


def test_deleting_a_clone_gives_its_address_back(clones: list[dict[str, Any]]) -> None:
    for one in clones:
        armvm("delete", "--yes", one["name"]).ok()
        assert reserved(one["name"]) is None
        assert leftovers(one["name"]) == []
