"""``explain`` of a machine that libvirt has: all that is in its XML and in its seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from armvm.provision.inspect.explain import NOT_OURS, THEIRS
from tests.libvirt.world import World


def parts(world: World, topic: str, name: str) -> list[dict[str, Any]]:
    told = world.armvm("explain", topic, name, "--json").ok().json
    assert told["machine"] == name
    return list(told["parts"])


def test_a_machine_is_explained_with_its_values(world: World, image: Path, name: str) -> None:
    world.held(name, image, "--mem", "384", "--network", "user")
    lines = parts(world, "xml", name)
    assert [one["line"] for one in lines if one["text"] == [NOT_OURS]] == []
    assert f"<name>{name}</name>" in [one["line"] for one in lines]
    assert '<memory unit="KiB">393216</memory>' in [one["line"] for one in lines]
    keys = parts(world, "seed", name)
    assert [one["line"] for one in keys if one["text"] == [THEIRS]] == []
    assert f"hostname: {name}" in [one["line"] for one in keys]
    assert "PRIVATE KEY" not in str(keys)
    firmware = world.armvm("explain", "firmware", name).ok().out
    assert "\nUEFI\n" in firmware
    assert "A kernel from outside" not in firmware
    network = world.armvm("explain", "network", name).ok().out
    assert "\nUser networking\n" in network
    assert "A libvirt network" not in network
    cpu = world.armvm("explain", "cpu", name, "--json").ok().json
    assert cpu["values"]["model"] == "cortex-a57"
