"""Directories of the host as devices of a machine: in its definition, and while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.base.errors import ArmvmError
from armvm.host.domain import shared_directories
from armvm.host.domain.instance import find_domain, inactive_xml, observe
from armvm.host.domain.shared_directories import Share
from tests import schemas
from tests.libvirt.world import World


def test_shares_come_and_go(world: World, name: str, blank_image: Path, tmp_path: Path) -> None:
    first, second = (
        Share(source=str(tmp_path / tag), target=f"/mnt/{tag} <&>", tag=tag, read_only=tag == "b")
        for tag in ("a", "b")
    )
    for share in (first, second):
        Path(share.source).mkdir()
    world.held(name, blank_image, "--network", "user")
    domain = find_domain(world.connection, name)
    record = observe(domain).record
    before = shared_directories.define(world.connection, domain, first)
    assert shared_directories.shares(domain) == [first]
    assert observe(domain).record == record
    shared_directories.restore(world.connection, before)
    assert shared_directories.shares(domain) == []
    shared_directories.define(world.connection, domain, first)

    world.armvm("start", name, "--no-wait").ok()
    assert shared_directories.has_shared_memory(domain)
    assert shared_directories.has_free_port(domain)
    assert shared_directories.tags(domain, live=True) == {"a"}
    shared_directories.attach(domain, second)
    assert shared_directories.tags(domain, live=True) == {"a", "b"}
    assert shared_directories.shares(domain) == [first, second]
    with pytest.raises(ArmvmError):
        shared_directories.attach(domain, Share(source="/none/there", target="/mnt/c", tag="c"))
    assert shared_directories.tags(domain, live=False) == {"a", "b"}
    rows = schemas.check("mount", world.armvm("mount", "--list", "--json").ok().json)
    assert [(row["tag"], row["attached"]) for row in rows if row["machine"] == name] == [
        ("a", True),
        ("b", True),
    ]
    # Nobody in the guest could mount anything: firmware alone runs.
    words = ("mount", tmp_path, f"{name}:/mnt/x")
    assert "guest agent of" in world.armvm(*words, "--allow-root").failed(10).err
    refused = world.armvm(*words).failed(6).err
    assert "root" in refused
    assert "--allow-root" in refused

    world.armvm("stop", name, "--force").ok()
    for share in (first, second):
        world.armvm("umount", f"{name}:{share.target}").ok()
    assert shared_directories.shares(domain) == []
    assert "filesystem" not in inactive_xml(domain)
    assert "armvm-shares" not in inactive_xml(domain)


@pytest.mark.slow
def test_a_machine_as_it_is_made_shares_no_memory(
    world: World, name: str, blank_image: Path, tmp_path: Path
) -> None:
    world.held(name, blank_image, "--network", "user")
    words = ("mount", tmp_path, f"{name}:/mnt/x", "--allow-root")
    assert "is not running" in world.armvm(*words).failed(10).err
    world.armvm("start", name, "--no-wait").ok()
    assert not shared_directories.has_shared_memory(find_domain(world.connection, name))
    world.armvm("mount", tmp_path / "none", f"{name}:/mnt/x").failed(4)
    world.armvm("mount", tmp_path, f"{name}:mnt").failed(3)
    world.armvm("mount", tmp_path, name).failed(2)
    world.armvm("mount", tmp_path).failed(2)
    world.armvm("umount", f"{name}:/mnt/x").failed(4)
