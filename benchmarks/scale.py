"""A growing number of clones of one golden: time per create, memory and disk per clone."""

from __future__ import annotations

import time

from benchmarks.case import Case, Figure, Reading
from benchmarks.memory import available_mib, disk_of, pss_mib, pss_parts
from benchmarks.world import World, need_root

#: Memory reserved for the host, in MiB: the series stops below it.
SPARE = 2048.0
#: Seconds to wait until a new machine is idle, before its memory is measured.
SETTLING = 5.0
#: The clones whose memory is compared with a cold machine's.
ADDED = range(2, 6)


def _cold(world: World) -> list[Reading]:
    """Boot a machine of the golden's shape, and measure its memory when idle."""
    with world.removed(world.name("coldpss")) as name:
        words = (world.armvm, "create", "--cold", "--preset", "minimal", "--network", "user")
        world.run(*words, "--image", world.reference, "--name", name)
        time.sleep(SETTLING)
        return [Reading(figure="cold-pss", value=pss_mib(name), parts=pss_parts(name))]


def _series(world: World) -> list[Reading]:
    """Create clones until the requested number is reached or memory runs out.

    The first ones run. If more are requested, all are suspended from then on (held): they keep
    their memory but do not use CPU. A host does not have enough for fifty idle emulated guests.
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
            Figure(key="scale-create", title="create, one clone after another"),
            Figure(key="scale-added", title="memory added by the 2nd…5th clone", unit="MiB"),
            Figure(key="scale-pss", title="memory per clone (PSS)", unit="MiB"),
            Figure(key="scale-disk", title="disk of a clone's overlay at creation", unit="MiB"),
        ),
        run=_series,
        why_not=need_root,
        once=True,
    ),
]
