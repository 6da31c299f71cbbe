"""After kill -9, the next create of that name, or delete, removes the leftovers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armvm.base.errors import Conflict
from armvm.base.progress import Quiet
from armvm.host.connection import connect
from armvm.host.domain.instance import instances
from armvm.provision.machine.delete import delete
from tests.libvirt.test_signals import hear, running, uploading
from tests.libvirt.world import (
    SYSTEM,
    Reporter,
    Steps,
    World,
    apply,
    kill_myself,
    until,
)
from tests.support import fresh_name


def in_child(work: Callable[[], None]) -> int:
    """Run *work* in a process of its own, and return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killed_at(world: World, image: Path, name: str, at: int, *, after: bool) -> bool:
    """Let a create be killed at a libvirt call; False when it has no such call any more."""
    planned = world.plan(name, image)

    def work() -> None:
        # libvirt's connections do not outlive a fork.
        steps = Steps(at=at, action=kill_myself, after=after)
        child = World(connection=connect(SYSTEM), pool=world.pool, directory=world.directory)
        apply(child.where(steps), planned)

    return in_child(work) == signal.SIGKILL


def is_whole(world: World, name: str) -> bool:
    """Tell whether a machine is there and nobody is making it."""
    found = [one for one in instances(world.connection) if one.name == name]
    return bool(found) and found[0].record.creator is None


@pytest.mark.parametrize("remedy", ["create", "delete"])
def test_killed_at_any_libvirt_call(world: World, image: Path, name: str, remedy: str) -> None:
    world.remove_bases()
    met: set[str] = set()
    # Every step has one of the remedies, in turn: telling a half-written base takes seconds.
    at = 4 if remedy == "create" else 5
    while killed_at(world, image, name, at, after=True):
        left = world.traces(name)
        if is_whole(world, name):  # it was killed after its last step
            with pytest.raises(Conflict):
                world.plan(name, image)
            break
        met |= {trace.split(".")[-1] for trace in left}
        if remedy == "delete":
            if left:
                delete(world.connection, name, pool_name=world.pool)
            assert world.half_bases(image) == [], f"call {at}"
        else:
            reporter = Reporter()
            apply(world.where(), world.plan(name, image), progress=reporter)
            assert len(world.traces(name)) == 4  # overlay, seed, domain, address
            assert world.half_bases(image) == []
            if f"domain {name}" in left:
                assert "interrupted create" in reporter.said[0]
            delete(world.connection, name, pool_name=world.pool)
        assert world.traces(name) == [], f"call {at}"
        world.remove_bases()
        at += 2
    assert at > 25
    assert {f"domain {name}", "iso"} <= met  # it was killed early and late
    delete(world.connection, name, pool_name=world.pool)


@pytest.mark.parametrize("remedy", ["create", "delete"])
def test_killed_in_the_middle_of_an_upload(
    world: World, big_image: Path, name: str, remedy: str
) -> None:
    world.remove_bases()
    command = ("create", "--name", name, "--image", big_image, "--no-start")
    with running(world, *command) as process:
        until(uploading(world, big_image), why="the upload")
        process.kill()
        process.communicate(timeout=60)
    assert f"domain {name}" in world.traces(name)
    assert len(world.half_bases(big_image)) == 1
    if remedy == "create":
        result = world.armvm(*command).ok()
        assert "interrupted create" in result.err
        assert world.half_bases(big_image) == []
        assert world.armvm("show", name, "--json").ok().json["state"] == "shut off"
        world.armvm("delete", "--yes", name).ok()
    else:
        world.armvm("delete", "--yes", name).ok()
        assert world.bases() == set()
    assert world.traces(name) == []


@pytest.fixture
def left(world: World, big_image: Path) -> Iterator[str]:
    """A machine PREFIX-01 whose create was killed."""
    world.remove_bases()
    prefix = fresh_name()
    command = ("create", "--count", "2", "--name-prefix", prefix, "--image", big_image)
    with running(world, *command, "--no-start") as process:
        until(uploading(world, big_image), why="the upload")
        process.kill()
        process.communicate(timeout=60)
    yield prefix
    for number in ("01", "02"):
        world.armvm("delete", "--yes", f"{prefix}-{number}")
    assert world.traces(prefix) == []


def test_what_a_killed_create_left_is_named_with_the_cure(
    world: World, left: str, image: Path
) -> None:
    name = f"{left}-01"
    cure = f"armvm delete {name}"
    again = ("create", "--count", "1", "--name-prefix", left, "--image", image, "--no-start")
    said = world.armvm(*again).ok()
    assert f"{left}-02" in said.out
    assert cure in said.err
    for verb in (("list",), ("show", name)):
        assert "unfinished" in world.armvm(*verb).ok().out
    for words in (
        ("start", name),
        ("wait", name),
        ("ssh", name, "--", "true"),
        ("umount", f"{name}:/mnt"),
        ("resize", name, "--cpus", "1"),
        ("clone", name, f"{name}-y"),
        ("snapshot", "create", name),
        ("golden", "create", f"{name}-g", "--from", name),
    ):
        err = world.armvm(*words).failed(5).err
        assert cure in err, words
        assert "armvm start" not in err, words


def test_killed_while_it_is_waited_for(world: World, image: Path, name: str) -> None:
    """The machine is whole by then: it stays, running, and is removed as any other."""
    with running(world, "create", "--name", name, "--image", image) as process:
        hear(process, f"{name}: starting")
        process.kill()
        process.communicate(timeout=60)
    assert world.armvm("show", name, "--json").ok().json["state"] == "running"
    world.armvm("create", "--name", name, "--image", image, "--no-start").failed(5)
    world.armvm("delete", "--yes", name).ok()
    assert world.traces(name) == []


def test_one_under_way_is_left_alone(world: World, big_image: Path, name: str) -> None:
    """Its maker lives, so neither create nor delete takes it away."""
    world.remove_bases()
    command = ("create", "--name", name, "--image", big_image, "--no-start")
    with running(world, *command) as process:
        until(uploading(world, big_image), why="the upload")
        process.send_signal(signal.SIGSTOP)
        listed = world.armvm("list", "--json").ok().json
        assert [one["state"] for one in listed if one["name"] == name] == ["creating"]
        result = world.armvm("delete", "--yes", name).failed(5)
        assert str(process.pid) in result.err
        world.armvm(*command).failed(5)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert world.half_bases(big_image) == []


def test_volumes_without_a_domain_are_removed_too(world: World, image: Path, name: str) -> None:
    (world.directory / f"{name}.qcow2").write_bytes(b"left")
    (world.directory / f"{name}.serial.log.0").write_bytes(b"left")
    world.armvm("delete", "--yes", name).ok()
    assert world.traces(name) == []
    world.armvm("delete", "--yes", name).failed(4)
    (world.directory / f"{name}.seed.iso").write_bytes(b"left")
    apply(world.where(), world.plan(name, image), progress=Quiet())
    assert (world.directory / f"{name}.seed.iso").stat().st_size > 4
