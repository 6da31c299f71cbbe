"""Several machines in one call: names, a failure half-way, Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import Conflict
from armvm.base.progress import Quiet
from armvm.provision.golden.choose import Warm
from armvm.provision.launch.many import launch_all, plans
from armvm.settings.machine import Machine
from tests.libvirt.test_signals import hear, running
from tests.libvirt.world import KEY, World
from tests.support import fresh_name


@pytest.fixture
def prefix(world: World) -> Iterator[str]:
    """A prefix of names for one test; the machines that have it are removed afterwards."""
    chosen = fresh_name("armvm-many")
    yield chosen
    for name in made(world, chosen):
        world.armvm("delete", "--yes", name)


def made(world: World, prefix: str) -> list[str]:
    """Return the names with a prefix that some trace of a machine is left of."""
    domains = [domain.name() for domain in world.connection.listAllDomains(0)]
    volumes = [volume.split(".")[0] for volume in world.volumes()]
    return sorted({name for name in (*domains, *volumes) if name.startswith(prefix)})


def several(prefix: str, image: Path, count: int, *more: str) -> tuple[str | Path, ...]:
    count_words = ("--count", str(count), "--name-prefix", prefix)
    return ("create", *count_words, "--image", image, *more)


def test_the_next_free_names_are_taken(world: World, image: Path, prefix: str) -> None:
    world.held(f"{prefix}-02", image)
    command = several(prefix, image, 3, "--no-start", "--json")
    planned = world.armvm(*command, "--dry-run").ok().json
    assert made(world, prefix) == [f"{prefix}-02"]
    told = world.armvm(*command).ok().json
    names = [f"{prefix}-01", f"{prefix}-03", f"{prefix}-04"]
    assert [one["name"] for one in told] == [one["name"] for one in planned] == names
    assert all(len(world.traces(name)) == 4 for name in names)
    assert len({one["uuid"] for one in told}) == len({one["mac"] for one in told}) == 3


def test_one_is_a_list_too_where_a_count_was_given(world: World, image: Path, prefix: str) -> None:
    [one] = world.armvm(*several(prefix, image, 1, "--no-start", "--json")).ok().json
    assert one["name"] == f"{prefix}-01"


@pytest.mark.parametrize(
    "words",
    [
        ("--name", "one", "--count", "2"),
        ("--name", "one", "--name-prefix", "two"),
        ("--count", "2", "--print-xml"),
    ],
    ids=" ".join,
)
def test_what_contradicts_itself_is_told(world: World, image: Path, words: tuple[str, ...]) -> None:
    told = world.armvm("create", "--image", image, "--no-start", *words).failed(2)
    assert "hint: " in told.err


def test_a_prefix_that_begins_no_name(world: World, image: Path) -> None:
    world.armvm(*several("A b", image, 2, "--no-start")).failed(3)
    world.armvm(*several("a" * 61, image, 2, "--no-start")).failed(3)


def test_a_failure_leaves_those_that_are_whole(world: World, image: Path, prefix: str) -> None:
    """The third's name is taken while the first two are made."""
    names = [f"{prefix}-0{number}" for number in (1, 2, 3, 4)]
    where = world.where()
    machine = Machine(name=names[0], image=str(image), ssh_keys=(KEY,))
    told: list[str] = []

    def tell(_plan: Any, created: Any) -> None:
        told.append(created.instance.name)
        if len(told) == 1:
            world.held(names[2], image)

    with pytest.raises(Conflict, match=names[2]):
        launch_all(
            where,
            plans(where, machine, names, Quiet()),
            start=False,
            wait=True,
            timeout=None,
            progress=Quiet(),
            warm=Warm(cold=True),
            tell=tell,
        )
    assert told == names[:2]
    assert made(world, prefix) == names[:3]
    assert all(len(world.traces(name)) == 4 for name in names[:3])


def test_ctrl_c_leaves_those_that_are_whole(world: World, image: Path, prefix: str) -> None:
    with running(world, *several(prefix, image, 40, "--no-start")) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    told = [line.split()[0] for line in (first + out).splitlines() if " created" in line]
    left = made(world, prefix)
    assert told == left[: len(told)]
    assert len(left) <= len(told) + 1 < 40, "the last may be whole, and not told yet"
    assert all(len(world.traces(name)) == 4 for name in left)


@pytest.mark.slow
def test_those_not_ready_in_time_stay_and_no_more_are_begun(
    world: World, image: Path, prefix: str
) -> None:
    """The image cannot boot. Two boot at a time on two CPUs; on more, more are begun."""
    command = several(prefix, image, 200, "--timeout", "3", "--mem", "256", "--json")
    told = world.armvm(*command, "--network", "user", timeout=300).failed(11)
    assert f"{prefix}-01 is not ready" in told.err
    names = [one["name"] for one in told.json]
    assert names == made(world, prefix)
    assert 1 <= len(names) < 200
    assert {one["state"] for one in told.json} == {"running"}
    assert {one["ready_seconds"] for one in told.json} == {None}


def test_ctrl_c_removes_those_that_boot(world: World, image: Path, prefix: str) -> None:
    command = several(prefix, image, 200, "--network", "user", "--mem", "256")
    with running(world, *command) as process:
        hear(process, f"{prefix}-01: starting")
        assert len(made(world, prefix)) >= 1
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert made(world, prefix) == []
