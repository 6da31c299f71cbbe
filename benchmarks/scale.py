"""One golden, more and more clones: time per create, memory and disk per clone."""

from __future__ import annotations

import time

from benchmarks.case import Case, Figure, Reading
from benchmarks.memory import available_mib, disk_of, pss_mib
from benchmarks.world import World, need_root

#: Memory that is left to the host, in MiB: no more clones are made below it.
SPARE = 2048.0
#: Seconds until a new machine is idle, before its memory is looked at.
SETTLING = 5.0
#: The clones whose memory is held against a cold machine's.
ADDED = range(2, 6)


def _cold(world: World) -> list[Reading]:
    """Boot a machine of the golden's shape, let it become idle, and weigh it."""
    with world.removed(world.name("coldpss")) as name:
        words = (world.armvm, "create", "--cold", "--preset", "minimal", "--network", "user")
        world.run(*words, "--image", world.reference, "--name", name)
        time.sleep(SETTLING)
        return [Reading(figure="cold-pss", value=pss_mib(name))]


def _series(world: World) -> list[Reading]:
    """Make clones until there are as many as asked for, or the memory ends.

    The first ones run. Where more are asked for, all are suspended from then on (held): they keep
    their memory and take no CPU, of which a host has too little for fifty idle emulated guests.
    """
    golden = world.golden("user")
    names: list[str] = []
    readings: list[Reading] = []
    before = 0.0
    try:
        for count in range(1, max(world.clones, world.held) + 1):
            if available_mib() < SPARE:
                break
            held = count > world.clones
            if count == world.clones + 1:
                for name in names:
                    world.virsh("suspend", name)
            name = world.name("scale")
            names.append(name)
            seconds = world.timed(world.armvm, "create", "--from", golden, "--name", name)
            disk = disk_of(world.virsh("dumpxml", "--inactive", name))
            time.sleep(1.0 if held else SETTLING)
            if held:
                world.virsh("suspend", name)
            total = sum(pss_mib(one) for one in names)
            at = {"clones": float(count), "held": float(held)}
            sizes = {"seed": disk.seed, "nvram": disk.nvram}
            readings += [
                Reading(figure="scale-create", value=seconds, parts=at),
                Reading(figure="scale-disk", value=disk.overlay, parts={**at, **sizes}),
                Reading(figure="scale-pss", value=total / count, parts={**at, "total": total}),
            ]
            if count in ADDED:
                readings.append(Reading(figure="scale-added", value=total - before, parts=at))
            before = total
    finally:
        if names:
            world.remove(*names)
    return readings


CASES = [
    Case(
        group="scale",
        figures=(Figure(key="cold-pss", title="memory of a cold machine, idle", unit="MiB"),),
        run=_cold,
        why_not=need_root,
        once=True,
    ),
    Case(
        group="scale",
        figures=(
            Figure(key="scale-create", title="create, clone after clone"),
            Figure(key="scale-added", title="memory that the 2nd…5th clone adds", unit="MiB"),
            Figure(key="scale-pss", title="memory per clone, shared parts divided", unit="MiB"),
            Figure(key="scale-disk", title="disk of a clone's overlay at creation", unit="MiB"),
        ),
        run=_series,
        why_not=need_root,
        once=True,
    ),
]
