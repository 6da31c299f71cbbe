"""Clones taken off their golden's disk: off, paused, ended early. No guest runs an instruction."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from armvm.base.errors import Conflict, NotFound
from armvm.base.progress import Quiet
from armvm.host.connection import connect
from armvm.host.domain import lifecycle
from armvm.host.domain.golden_domain import Mark, find_golden, prepare_definition, set_mark
from armvm.host.domain.instance import find_domain, instances, observe
from armvm.host.xml import to_text
from armvm.provision.golden.flatten import flatten
from armvm.provision.golden.goldens import delete, describe
from tests.libvirt.test_killed import in_child
from tests.libvirt.world import (
    SYSTEM,
    Ended,
    Steps,
    World,
    ended_by_signals,
    kill_myself,
    signal_myself,
    until,
    virsh,
)
from tests.support import fresh_name


def write(disk: Path, offset: str, pattern: int, size: str = "1M") -> None:
    """Write to a disk that no QEMU has open."""
    command = f"write -P {pattern} {offset} {size}"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, disk], check=True, capture_output=True)


def contents(disk: Path) -> str:
    """Return the digest of what a guest would read, through all that the disk stands on.

    Of its beginning: the tests write nowhere else.
    """
    raw = disk.with_suffix(".raw")
    try:
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", disk, raw], check=True)
        with raw.open("rb") as file:
            return hashlib.sha256(file.read(16 << 20)).hexdigest()
    finally:
        raw.unlink(missing_ok=True)


def backing(disk: Path) -> str | None:
    """Return the name of the file that a disk stands on."""
    command = ["qemu-img", "info", "-U", "--output=json", str(disk)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    path = told.get("backing-filename")
    return Path(path).name if path else None


@pytest.fixture
def golden(world: World, image: Path) -> Iterator[str]:
    """A golden as baking leaves it, but for its memory and state, which no test here needs."""
    name = fresh_name("armvm-flat") + "-gold"
    world.held(name, image, "--network", "user", "--disk", "1G")
    disk = world.directory / f"{name}.qcow2"
    write(disk, "0", 7, "8M")
    domain = find_domain(world.connection, name)
    record = observe(domain).record
    mark = Mark(created="", shape={"image": "x"}, ground={}, state_digest="", record=record)
    element = prepare_definition(domain)
    set_mark(element, mark)
    lifecycle.define(world.connection, to_text(element), name)
    disk.chmod(0o444)
    yield name
    for machine in instances(world.connection):
        if machine.name.startswith(name.removesuffix("gold")):
            world.armvm("delete", "--yes", machine.name)
    with contextlib.suppress(NotFound):
        delete(world.connection, name)


def clone(world: World, image: Path, golden: str, number: int) -> str:
    """Make a machine that is off and stands on a golden's disk, as a clone that was stopped."""
    name = f"{golden.removesuffix('gold')}{number}"
    world.held(name, image, "--network", "user", "--disk", "1G")
    disk = world.directory / f"{name}.qcow2"
    disk.unlink()
    words = ["-b", world.directory / f"{golden}.qcow2", "-F", "qcow2", disk]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *map(str, words)], check=True)
    write(disk, "1M", number)
    virsh("pool-refresh", world.pool)
    return name


def state(world: World, name: str) -> str:
    return observe(find_domain(world.connection, name)).state


def test_clones_that_are_off(world: World, image: Path, golden: str) -> None:
    names = [clone(world, image, golden, number) for number in (1, 2)]
    disks = [world.directory / f"{name}.qcow2" for name in names]
    before = [contents(disk) for disk in disks]
    kept = [virsh("dumpxml", "--inactive", name) for name in names]
    world.armvm("golden", "delete", "--yes", golden).failed(5)
    told = world.armvm("golden", "delete", "--yes", "--flatten", golden).ok()
    assert all(f"{name} no longer needs {golden}" in told.out for name in names)
    assert world.traces(golden) == []
    assert [contents(disk) for disk in disks] == before
    assert [backing(disk) for disk in disks] == [world.base_of(image).name] * 2
    assert [state(world, name) for name in names] == ["shut off"] * 2
    assert [virsh("dumpxml", "--inactive", name) for name in names] == kept


def test_one_that_lives_stays_as_it_is(world: World, image: Path, golden: str) -> None:
    name = clone(world, image, golden, 1)
    disk = world.directory / f"{name}.qcow2"
    before = contents(disk)
    domain = find_domain(world.connection, name)
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    process = domain.ID()
    assert flatten(world.connection, golden, Quiet()) == [name]
    assert (state(world, name), domain.ID()) == ("paused", process)
    delete(world.connection, golden)
    assert backing(disk) == world.base_of(image).name
    domain.destroy()
    assert contents(disk) == before


def test_a_golden_whose_disk_stands_on_nothing(world: World, image: Path, golden: str) -> None:
    name = clone(world, image, golden, 1)
    disk = world.directory / f"{golden}.qcow2"
    disk.chmod(0o600)
    subprocess.run(["qemu-img", "rebase", "-b", "", "-f", "qcow2", disk], check=True)
    virsh("pool-refresh", world.pool)
    before = contents(world.directory / f"{name}.qcow2")
    flatten(world.connection, golden, Quiet())
    delete(world.connection, golden)
    assert backing(world.directory / f"{name}.qcow2") is None
    assert contents(world.directory / f"{name}.qcow2") == before


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_ended_at_any_libvirt_call(world: World, image: Path, golden: str, how: str) -> None:
    """Whenever it ends: the clone reads the same, is off, and the golden is there until the end."""
    name = clone(world, image, golden, 1)
    disk = world.directory / f"{name}.qcow2"
    before = contents(disk)
    ends = (golden, world.base_of(image).name)
    seen = set()
    over = False
    for at in range(1 if how == "killed" else 2, 60, 2):
        steps = Steps(at=at, action=signal_myself if how == "interrupted" else kill_myself)
        over = _run(steps, world, golden, how)
        assert world.connection.lookupByName(golden)
        until_off(world, name)
        assert contents(disk) == before, f"call {at}: {steps.calls[-1:]}"
        seen.add(backing(disk))
        if over:
            break
        # Put back for the next round, so that each has all of it to do.
        words = ["-b", world.directory / f"{golden}.qcow2", "-F", "qcow2", disk]
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", *map(str, words)], check=True)
        virsh("pool-refresh", world.pool)
    assert over, "it came to its end"
    assert {f"{ends[0]}.qcow2", ends[1]} <= seen, "it was ended before and after the move"
    delete(world.connection, golden)
    assert contents(disk) == before


def _run(steps: Steps, world: World, golden: str, how: str) -> bool:
    """Flatten, to be ended at a step; tell whether it came to its end instead."""
    if how == "killed":

        def work() -> None:
            flatten(steps.watch(connect(SYSTEM)), golden, Quiet())

        return in_child(work) != signal.SIGKILL
    try:
        with ended_by_signals():
            flatten(steps.watch(world.connection), golden, Quiet())
    except Ended:
        return False
    return True


def until_off(world: World, name: str) -> None:
    """libvirt ends what a killed process held as soon as it sees the connection closed."""
    until(lambda: state(world, name) == "shut off", limit=20, why=f"{name} off")


def test_snapshots_are_told(world: World, image: Path, golden: str) -> None:
    """What a snapshot has not of its own it reads from the golden, and would read from the base."""
    name = clone(world, image, golden, 1)
    virsh("snapshot-create-as", name, "one", "--diskspec", "vda", "--diskspec", "vdb,snapshot=no")
    with pytest.raises(Conflict, match="snapshots"):
        flatten(world.connection, golden, Quiet())


def test_a_volume_of_no_machine_is_told(world: World, image: Path, golden: str) -> None:
    stray = world.directory / "stray.qcow2"
    words = ["-b", world.directory / f"{golden}.qcow2", "-F", "qcow2", stray]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *map(str, words)], check=True)
    try:
        with pytest.raises(Conflict, match=r"stray\.qcow2"):
            flatten(world.connection, golden, Quiet())
        told = world.armvm("golden", "delete", "--yes", "--flatten", golden).failed(5)
        assert "vol-delete" in told.err
    finally:
        stray.unlink()
        virsh("pool-refresh", world.pool)


def test_a_clones_snapshot_is_no_clone(world: World, image: Path, golden: str) -> None:
    """It stands on the golden's disk too, and keeps it from being deleted."""
    machine = clone(world, image, golden, 1)
    world.armvm("snapshot", "create", machine, "first").ok()
    where = world.where()
    told = describe(where, find_golden(world.connection, golden))
    assert told.clones == [f"{machine}.qcow2"]
    refused = world.armvm("golden", "delete", "--yes", golden).failed(5)
    assert f"snapshot first of {machine}" in refused.err
