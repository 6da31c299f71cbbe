"""Cold boots of one image to the first ssh command: the recipe, armvm, and the peers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from armvm.base.errors import CommandFailed
from benchmarks.case import Case, Figure, Reading
from benchmarks.login import wait_for_ssh
from benchmarks.peers import Testcloud, testcloud_problem, virt_install, virt_install_problem
from benchmarks.recipe import domain_xml, make_disk, make_seed, seed_problem
from benchmarks.world import World, need_root


def _recipe(world: World, name: str) -> None:
    """Follow the manual recipe: overlay, seed, define, start."""
    disk, seed = make_disk(world, name), make_seed(world, name)
    xml = world.directory / f"{name}.xml"
    xml.write_text(domain_xml(name, disk, seed))
    world.virsh("define", xml)
    world.virsh("start", name)


def _virt_install(world: World, name: str) -> None:
    world.run(*virt_install(world, name, make_seed(world, name)))


def _armvm(*flags: str) -> Callable[[World, str], None]:
    def make(world: World, name: str) -> None:
        words = [world.armvm, "create", "--cold", "--no-wait", "--image", world.reference]
        key = str(world.key.with_suffix(".pub"))
        world.run(*words, "--name", name, "--ssh-key", key, *flags)

    return make


_testclouds: dict[str, Testcloud] = {}


def _testcloud(world: World, name: str) -> None:
    _testclouds[world.prefix].create(name)


def _prepared_testcloud(world: World) -> None:
    if world.prefix not in _testclouds:
        _testclouds[world.prefix] = Testcloud(world)


def _boot(
    figure: str, make: Callable[[World, str], None], before: Callable[[World], None] | None = None
) -> Callable[[World], list[Reading]]:
    """Return a case's run: make a machine, wait for its first ssh command, remove it."""

    def run(world: World) -> list[Reading]:
        if before is not None:
            before(world)
        name = world.name("cold")
        try:
            start = time.perf_counter()
            make(world, name)
            made = time.perf_counter() - start
            wait_for_ssh(world, name)
            seconds = time.perf_counter() - start
        finally:
            away(world, name)
        return [Reading(figure=figure, value=seconds, parts={"create": made})]

    return run


def away(world: World, name: str) -> None:
    """Remove a domain, whichever tool made it, and the files that this run made for it."""
    world.remove(name)  # armvm's machines, with their volumes; armvm refuses all others
    for words in (("destroy", name), ("undefine", "--nvram", name)):
        with contextlib.suppress(CommandFailed):
            world.virsh(*words)
    for left in world.directory.glob(f"{name}.*"):
        left.unlink()


def _case(
    key: str,
    title: str,
    make: Callable[[World, str], None],
    *problems: Callable[[World], str | None],
    before: Callable[[World], None] | None = None,
) -> Case:
    def why_not(world: World) -> str | None:
        found = (problem(world) for problem in (need_root, *problems))
        return next((one for one in found if one), None)

    return Case(
        group="cold",
        figures=(Figure(key=key, title=title),),
        run=_boot(key, make, before),
        why_not=why_not,
    )


CASES = [
    _case("cold-recipe", "the manual recipe → ssh", _recipe, seed_problem),
    _case("cold-default", "armvm create → ssh", _armvm()),
    _case("cold-fast", "armvm create --fast → ssh", _armvm("--fast")),
    _case(
        "cold-virt-install",
        "virt-install --import → ssh",
        _virt_install,
        seed_problem,
        virt_install_problem,
    ),
    _case(
        "cold-testcloud",
        "testcloud create → ssh",
        _testcloud,
        testcloud_problem,
        before=_prepared_testcloud,
    ),
]
