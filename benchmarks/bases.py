"""How the base is kept: the same image in several forms, booted to the first ssh command.

What is timed is a cold ``armvm create`` with the form's file as its image. The disk that a form
takes is read from its file; among the parts are the seconds that making it takes, and the
processor time of QEMU until then, which tells more than the clock does on a busy host.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from armvm.base.errors import CommandFailed
from benchmarks.case import Case, Figure, Reading
from benchmarks.cold import away
from benchmarks.login import wait_for_ssh
from benchmarks.memory import cpu_seconds
from benchmarks.world import World, need_root

_MIB = 1 << 20
#: What ``qemu-img convert`` is told for each form. The first is how images are published.
FORMS = {
    "zlib": ("-c",),
    "zstd": ("-c", "-o", "compression_type=zstd"),
    "plain": (),
    "plain-16k": ("-o", "cluster_size=16k"),
    "plain-2m": ("-o", "cluster_size=2M"),
    "preallocated": ("-o", "preallocation=metadata,lazy_refcounts=on"),
}


def _form(world: World, form: str) -> tuple[Path, float]:
    """Return the image in one form, and the seconds that making it took: 0 when it was there."""
    path = world.directory / f"base-{form}.qcow2"
    if path.exists():
        return path, 0.0
    words = ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", *FORMS[form]]
    return path, world.timed(*words, world.image, path)


def _boot(form: str) -> Callable[[World], list[Reading]]:
    def run(world: World) -> list[Reading]:
        path, made = _form(world, form)
        name = world.name("base")
        words = [world.armvm, "create", "--no-wait", "--cold", "--preset", "minimal"]
        words += ["--image", str(path), "--ssh-key", str(world.key.with_suffix(".pub"))]
        # The copy to the pool happens once for an image, so before anything is timed.
        with world.removed(world.name("held")) as held:
            world.run(*words, "--no-start", "--name", held)
            facts = json.loads(world.run(world.armvm, "show", held, "--json").text)
        try:
            start = time.perf_counter()
            world.run(*words, "--user", "debian", "--name", name)
            wait_for_ssh(world, name)
            seconds = time.perf_counter() - start
            parts = {"cpu": cpu_seconds(name)}
        finally:
            away(world, name)
            with contextlib.suppress(CommandFailed):  # the host's own machines may stand on it
                world.run(world.armvm, "image", "rm", facts["image"]["digest"])
        disk = path.stat().st_blocks * 512 / _MIB
        if made:
            parts["made"] = made
        return [
            Reading(figure=f"base-{form}", value=seconds, parts=parts),
            Reading(figure=f"base-{form}-disk", value=disk),
        ]

    return run


def _case(form: str) -> Case:
    return Case(
        group="base",
        figures=(
            Figure(key=f"base-{form}", title=f"base as {form} → ssh"),
            Figure(key=f"base-{form}-disk", title=f"disk of the base as {form}", unit="MiB"),
        ),
        run=_boot(form),
        why_not=need_root,
    )


CASES = [_case(form) for form in FORMS]
