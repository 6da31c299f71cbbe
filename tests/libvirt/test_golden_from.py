"""A golden from a machine, before anything boots: which machines, and the copy of the disk."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from armvm.base.errors import Conflict, NotFound, StorageError
from armvm.host.domain.instance import find_domain
from armvm.host.storage import pools, volumes
from armvm.provision.golden.from_machine import find_original, settings_of
from armvm.settings.layers import Layer, resolve
from tests.libvirt.test_flatten import backing, contents, write
from tests.libvirt.world import World, virsh


def test_the_copy_reads_the_same_and_stands_alone(world: World, image: Path, name: str) -> None:
    world.held(name, image, "--disk", "1G")
    write(world.directory / f"{name}.qcow2", "2M", 5)
    original = find_original(world.where(), name)
    assert original.capacity == 1 << 30
    before = contents(world.directory / f"{name}.qcow2")
    pool = pools.find_pool(world.connection, world.pool)
    copy = volumes.copy_volume(pool, f"{name}.copy", original.volume, "qcow2")
    try:
        path = world.directory / f"{name}.copy"
        assert contents(path) == before
        assert backing(path) is None
        assert volumes.capacity(copy) == original.capacity
        write(path, "0", 9)
        assert contents(world.directory / f"{name}.qcow2") == before
    finally:
        volumes.delete_volume(copy)


def test_the_machines_settings_are_the_goldens(world: World, image: Path, name: str) -> None:
    options = ("--disk", "1536M", "--cpus", "3", "--mem", "300", "--user", "alice")
    world.held(name, image, *options, "--no-autologin", "--headless")
    layer = Layer(origin="it", values=settings_of(find_original(world.where(), name)))
    values = {key: one.value for key, one in resolve([layer]).items()}
    assert values == {
        "image": f"machine:{name}", "cpus": 3, "mem": 300, "disk": 1536 << 20, "cpu": None,
        "user": "alice", "network": "armvm", "ip": None, "headless": True, "autologin": False,
        "motd": True, "fast": False, "tuned": False,
    }  # fmt: skip


def test_which_machines_are_refused(world: World, image: Path, name: str) -> None:
    with pytest.raises(NotFound):
        find_original(world.where(), name)
    world.held(name, image, "--network", "user")
    domain = find_domain(world.connection, name)
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    told = world.armvm("golden", "create", "--from", name).failed(5)
    assert f"armvm stop {name}" in told.err
    domain.destroy()
    for words in (("--disk", "20G"), ("--image", str(image))):
        with_other = world.armvm("golden", "create", f"{name}-g", "--from", name, *words)
        assert "leave out --disk and --image" in with_other.failed(5).err
    (world.directory / f"{name}.qcow2").unlink()
    virsh("pool-refresh", world.pool)
    with pytest.raises(StorageError):
        find_original(world.where(), name)


def test_a_machine_under_way_is_refused(world: World, image: Path, name: str) -> None:
    from tests.libvirt.test_killed import killed_at

    assert killed_at(world, image, name, 14, after=True)
    with pytest.raises(Conflict, match="left behind"):
        find_original(world.where(), name)
