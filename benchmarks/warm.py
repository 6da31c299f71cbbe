"""Machines made from a golden: clone and first ssh command, ``run``, ``golden create``."""

from __future__ import annotations

from armvm.base.errors import CommandFailed
from benchmarks.case import Case, Figure, Reading
from benchmarks.world import World, need_root


def _golden(world: World) -> list[Reading]:
    """Create a golden; measure the time after its machine has booted."""
    baked = world.bake("user")
    world.keep_golden("user", baked)
    parts = {"whole": baked.seconds, "boot": baked.boot}
    return [Reading(figure="golden", value=baked.seconds - baked.boot, parts=parts)]


def _clone(world: World, network: str, figure: str) -> list[Reading]:
    """Time two complete command lines: create a clone, and run a first command in it."""
    golden = world.golden(network)
    with world.removed(world.name("warm")) as name:
        create = world.timed(world.armvm, "create", "--from", golden, "--name", name)
        login = world.timed(world.armvm, "ssh", name, "--", "true")
    return [Reading(figure=figure, value=create + login, parts={"create": create, "ssh": login})]


def _run(world: World) -> list[Reading]:
    """Time a temporary machine, and check that it was removed."""
    golden, name = world.golden("user"), world.name("run")
    with world.removed(name):
        seconds = world.timed(world.armvm, "run", "--from", golden, "--name", name, "--", "true")
        if name in world.virsh("list", "--all", "--name").split():
            raise CommandFailed(f"armvm run did not remove {name}")
    return [Reading(figure="run", value=seconds)]


CASES = [
    Case(
        group="warm",
        figures=(Figure(key="golden", title="armvm golden create, without its boot"),),
        run=_golden,
    ),
    Case(
        group="warm",
        figures=(Figure(key="warm-user", title="armvm create --from GOLDEN; armvm ssh"),),
        run=lambda world: _clone(world, "user", "warm-user"),
    ),
    Case(
        group="warm",
        figures=(Figure(key="warm-bridged", title="the same on a bridged network"),),
        run=lambda world: _clone(world, "armvm", "warm-bridged"),
        why_not=need_root,
    ),
    Case(
        group="warm",
        figures=(Figure(key="run", title="armvm run --from GOLDEN -- true"),),
        run=_run,
    ),
]
