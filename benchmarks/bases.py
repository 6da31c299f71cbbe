"""Base image formats: the same image in several formats, booted to the first ssh command.

The time is that of a cold ``armvm create`` with the converted file as its image. The disk size is
read from that file. The parts are the seconds to convert it and QEMU's CPU time, which is more
reliable than wall-clock time on a busy host.
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
#: Options of ``qemu-img convert`` for each format. Published images use the first.
FORMS = {
    "zlib": ("-c",),
    "zstd": ("-c", "-o", "compression_type=zstd"),
    "plain": (),
    "plain-16k": ("-o", "cluster_size=16k"),
    "plain-2m": ("-o", "cluster_size=2M"),
    "preallocated": ("-o", "preallocation=metadata,lazy_refcounts=on"),
}


def _form(world: World, form: str) -> tuple[Path, float]:
    """Return the image in one format, and the seconds to convert it: 0 if it existed."""
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
        # armvm copies an image to the pool once; do this before the clock starts.
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
            with contextlib.suppress(CommandFailed):  # the host's own machines may use it
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
