"""A golden after the first cold create of a shape (``warm = "auto"``), baked in the background.

The bake is an ``armvm golden create`` of its own, which outlives this process. The golden's name
is made from what makes it fit, so that two creates mean the same one, and defining it decides
between two bakes. One that was killed is removed by the next of its name.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from armvm.base import process
from armvm.base.errors import ArmvmError, MissingCapability
from armvm.base.paths import private_dir, state_dir
from armvm.base.progress import Progress
from armvm.host.domain.golden_domain import Golden, goldens, loader_of
from armvm.host.domain.instance import find_domain, instances
from armvm.host.storage import pools
from armvm.provision.golden.bake import check_system, ground_of, shape_of
from armvm.provision.golden.choose import Warm, fits
from armvm.provision.golden.goldens import delete as delete_golden
from armvm.provision.golden.goldens import users_of
from armvm.provision.launch.launch import Created
from armvm.provision.machine.create import Where
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.unfinished import is_dead
from armvm.settings import verify
from armvm.settings.machine import Machine
from armvm.settings.table import SETTINGS

PREFIX = "warm-"


def bake_after(
    where: Where, plan: CreatePlan, created: Created, wish: Warm, progress: Progress
) -> str | None:
    """Begin to bake a golden like the machine just made; return its name, None for none.

    None is baked where none would be of use: after a clone, with user-data or a
    password, with ``--cold``, ``--from`` or ``--no-wait``. A failure is told, and is no error:
    the machine is there.
    """
    if not wish.bake or wish.cold or wish.asked is not None or created.ready is None:
        return None
    machine = plan.machine
    if created.instance.record.golden is not None or machine.fast:
        return None
    if machine.user_data or machine.password_hash:
        return None
    try:
        check_system(plan.source.system)
    except MissingCapability:
        return None
    try:
        return _begin(where, plan, created, progress)
    except (ArmvmError, OSError) as error:
        progress.warn(f"no golden is baked: {error}")
        return None


def golden_name(shape: dict[str, Any], ground: dict[str, Any]) -> str:
    """Return the name of the golden that has this shape on this ground: ``warm-1a2b3c4d``."""
    text = json.dumps([shape, ground], sort_keys=True)
    return PREFIX + hashlib.sha256(text.encode()).hexdigest()[:8]


def settings_of(machine: Machine) -> dict[str, str]:
    """Return a machine's settings as the ``ARMVM_*`` variables that make the same machine."""
    found = {
        one.variable: one.write(value)
        for one in SETTINGS.values()
        if (value := getattr(machine, one.field)) is not None
    }
    return {**found, "ARMVM_PRESET": machine.preset}


def _begin(where: Where, plan: CreatePlan, created: Created, progress: Progress) -> str | None:
    connection = where.connection
    digest = created.instance.record.image.get("digest", "")
    shape = shape_of(plan, digest)
    name = golden_name(
        shape, ground_of(where.facts, loader_of(find_domain(connection, plan.machine.name)))
    )
    found = goldens(connection)
    if name in [one.name for one in found] or _is_being_baked(where, name):
        return None
    _remove_stale(where, found, shape, progress)
    directory = private_dir(state_dir())
    log = directory / f"{name}.log"
    words = ["golden", "create", name, "--connect", where.facts.uri, "--pool", where.pool]
    environment = settings_of(plan.machine)
    if where.verify is not None:
        environment[verify.VARIABLE] = where.verify.value
    process.detach([sys.executable, "-m", "armvm", *words], log, env=environment)
    progress.say(f"baking the golden {name} in the background, for the next of its kind: {log}")
    return name


def _is_being_baked(where: Where, name: str) -> bool:
    for one in instances(where.connection):
        if one.name == name:
            creator = one.record.creator
            return creator is None or not is_dead(creator)
    return False


def _remove_stale(
    where: Where, found: list[Golden], shape: dict[str, Any], progress: Progress
) -> None:
    """Remove the goldens baked here that the one to be baked replaces, unless they have clones.

    They have its shape, but the host has changed since.
    """
    for golden in found:
        if not golden.name.startswith(PREFIX) or golden.mark.shape != shape:
            continue
        pool = pools.find_pool(where.connection, golden.mark.record.pool)
        reason = fits(where, golden)
        if reason is None or (pool is not None and users_of(pool, golden)):
            continue
        progress.say(f"removing the golden {golden.name}: {reason}")
        delete_golden(where.connection, golden.name)
