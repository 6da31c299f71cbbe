"""Machines from a pool: ``run``, and ``create`` with its first command."""

from __future__ import annotations

import json
import time

from benchmarks.case import Case, Figure, Reading
from benchmarks.world import World


def _fill(world: World, golden: str) -> None:
    """Have one ready machine, and nothing in the background."""
    world.run(world.armvm, "pool", "set", golden, "--size", "1", "--quiet")
    world.run(world.armvm, "pool", "fill", golden, "--quiet")


def _run(world: World) -> list[Reading]:
    """Time a temporary machine from a full pool; the refill that it starts is not included."""
    golden = world.golden("user")
    _fill(world, golden)
    seconds = world.timed(world.armvm, "run", "--from", golden, "--", "true")
    _fill(world, golden)
    return [Reading(figure="run-pool", value=seconds)]


def _create(world: World) -> list[Reading]:
    """Time two complete command lines: create a machine from a pool, run a command in it."""
    golden = world.golden("user")
    _fill(world, golden)
    begun = time.perf_counter()
    made = json.loads(world.run(world.armvm, "create", "--from", golden, "--json").text)
    created = time.perf_counter()
    try:
        world.run(world.armvm, "exec", made["name"], "--", "true")
        ended = time.perf_counter()
    finally:
        world.remove(made["name"])
    _fill(world, golden)
    world.run(world.armvm, "pool", "set", golden, "--size", "0", "--quiet")
    parts = {"create": created - begun, "exec": ended - created}
    return [Reading(figure="create-pool", value=ended - begun, parts=parts)]


CASES = [
    Case(
        group="pool",
        figures=(Figure(key="run-pool", title="armvm run --from GOLDEN -- true, from a pool"),),
        run=_run,
    ),
    Case(
        group="pool",
        figures=(
            Figure(key="create-pool", title="armvm create --from GOLDEN, from a pool; armvm exec"),
        ),
        run=_create,
    ),
]
