"""The time of commands that do not wait for a guest."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lxml import etree

from armvm.base.errors import CommandFailed
from armvm.base.process import run
from benchmarks.case import Case, Figure, Reading
from benchmarks.cold import away
from benchmarks.peers import virt_install, virt_install_problem
from benchmarks.recipe import make_seed, seed_problem
from benchmarks.world import World, need_root

#: Number of domains for ``list`` and the completion of names.
DOMAINS = 100


def _create(world: World) -> list[Reading]:
    """Time ``create --no-wait`` with the image in the pool: seed, key, overlay, define, start."""
    with world.removed(world.name("nowait")) as name:
        words = (world.armvm, "create", "--cold", "--no-wait", "--image", world.reference)
        seconds = world.timed(*words, "--network", "default", "--name", name)
    return [Reading(figure="create-no-wait", value=seconds)]


def _virt_install(world: World) -> list[Reading]:
    """Time virt-install until it returns; its seed is prepared before."""
    name = world.name("vinowait")
    seed = make_seed(world, name)
    try:
        seconds = world.timed(*virt_install(world, name, seed))
    finally:
        away(world, name)
    return [Reading(figure="virt-install-no-wait", value=seconds)]


def _virt_install_problem(world: World) -> str | None:
    return need_root(world) or seed_problem(world) or virt_install_problem(world)


def _help(world: World) -> list[Reading]:
    return [Reading(figure="help", value=world.timed(world.armvm, "--help"))]


def _typer(world: World) -> list[Reading]:
    return [Reading(figure="typer", value=world.timed(sys.executable, "-c", "import typer"))]


def _list(world: World) -> list[Reading]:
    """Time ``list`` with 100 domains, and the completion of a name and of a command."""
    with _domains(world) as prefix:
        start = time.perf_counter()
        told = run([world.armvm, "list"], timeout=120).text
        listed = time.perf_counter() - start
        if told.count(prefix) < DOMAINS:
            raise CommandFailed(f"armvm list printed {told.count(prefix)} of {DOMAINS} machines")
        names = _complete(world, f"armvm show {prefix}", DOMAINS)
        verbs = _complete(world, "armvm cr", 1)
    return [
        Reading(figure="list", value=listed),
        Reading(figure="complete-name", value=names),
        Reading(figure="complete-verb", value=verbs),
    ]


def _complete(world: World, line: str, least: int) -> float:
    """Time the shell's completion request when Tab is pressed after *line*."""
    asked = {
        "_ARMVM_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    start = time.perf_counter()
    told = run([world.armvm], env=asked, timeout=120).text
    seconds = time.perf_counter() - start
    if len(told.split()) < least:
        raise CommandFailed(f"completion of {line!r} gives {told.split()}")
    return seconds


@contextmanager
def _domains(world: World) -> Iterator[str]:
    """Define 100 machines that are off, and undefine them afterwards; yields their prefix.

    All are copies of one machine's XML with other names, UUIDs and MAC addresses. They do not have
    volumes, which ``list`` does not read.
    """
    prefix = world.name("listed")
    with world.removed(f"{prefix}-0") as first:
        words = (world.armvm, "create", "--cold", "--no-start", "--image", world.reference)
        world.run(*words, "--network", "default", "--name", first)
        root = etree.fromstring(world.virsh("dumpxml", "--inactive", first))
        names = [f"{prefix}-{number}" for number in range(1, DOMAINS)]
        files = []
        for number, name in enumerate(names):
            _set(root, "name", name)
            _set(root, "uuid", str(uuid.uuid4()))
            _set(root, "os/nvram", f"/var/lib/libvirt/qemu/nvram/{name}_VARS.fd")
            mac = root.find("devices/interface/mac")
            if mac is not None:
                mac.set("address", f"52:54:00:be:{os.getpid() % 256:02x}:{number:02x}")
            file = world.directory / f"{name}.xml"
            file.write_text(etree.tostring(root, encoding="unicode"))
            files.append(file)
        try:
            world.virsh("; ".join(f"define {file}" for file in files))
            yield prefix
        finally:
            with suppress(CommandFailed):
                world.virsh("; ".join(f"undefine --nvram {name}" for name in names))
            for file in files:
                file.unlink()


def _set(root: etree._Element, path: str, text: str) -> None:
    element = root.find(path)
    if element is not None:
        element.text = text


CASES = [
    Case(
        group="overhead",
        figures=(Figure(key="create-no-wait", title="armvm create --no-wait, returns"),),
        run=_create,
        why_not=need_root,
    ),
    Case(
        group="overhead",
        figures=(
            Figure(
                key="virt-install-no-wait", title="virt-install --import --noautoconsole, returns"
            ),
        ),
        run=_virt_install,
        why_not=_virt_install_problem,
    ),
    Case(group="overhead", figures=(Figure(key="help", title="armvm --help"),), run=_help),
    Case(
        group="overhead",
        figures=(Figure(key="typer", title="python -c 'import typer'"),),
        run=_typer,
    ),
    Case(
        group="overhead",
        figures=(
            Figure(key="list", title="armvm list, 100 domains"),
            Figure(key="complete-name", title="completion of a machine's name, 100 domains"),
            Figure(key="complete-verb", title="completion of a command"),
        ),
        run=_list,
        why_not=need_root,
    ),
]
