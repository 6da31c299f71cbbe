"""Bake a golden in the background after the first cold create of a shape (``warm = "auto"``).

The bake is a separate ``armvm golden create`` that outlives this process. The golden's name is a
hash of its shape and ground, so two creates of the same shape choose the same name. libvirt
defines a name only once, so only one of two bakes continues. If a bake is killed, the next one of
that name removes its leftovers.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from armvm.base import process, programs
from armvm.base.errors import ArmvmError, MissingCapability
from armvm.base.paths import private_dir, state_dir
from armvm.base.progress import Progress
from armvm.host.domain.golden_domain import Golden, goldens, loader_of
from armvm.host.domain.instance import find_domain, instances
from armvm.host.storage import pools
from armvm.provision.golden.choose import Warm, fits
from armvm.provision.golden.fit import check_system, ground_of, shape_of
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
    where: Where, plan: CreatePlan, created: Created, warm: Warm, progress: Progress
) -> str | None:
    """Start baking a golden like the machine just made; return its name, or None.

    Nothing is baked if the machine is a clone or fast, has user-data, a password or a network
    configuration, or if ``--cold``, ``--from`` or ``--no-wait`` was given. A failure only prints a
    warning, because the machine itself was created.
    """
    if not warm.bake or warm.cold or warm.asked is not None or created.ready is None:
        return None
    machine = plan.machine
    if created.instance.record.golden is not None or machine.fast:
        return None
    if machine.user_data or machine.password_hash or machine.network_config:
        return None
    try:
        check_system(plan.source.system)
    except MissingCapability:
        return None
    try:
        return _begin(where, plan, created, progress)
    except (ArmvmError, OSError) as error:
        progress.warn(f"cannot bake a golden in the background: {error}")
        return None


def golden_name(shape: dict[str, Any], ground: dict[str, Any]) -> str:
    """Return the golden's name for a shape and a ground, such as ``warm-1a2b3c4d``."""
    text = json.dumps([shape, ground], sort_keys=True)
    return PREFIX + hashlib.sha256(text.encode()).hexdigest()[:8]


def settings_of(machine: Machine) -> dict[str, str]:
    """Return the settings that a machine's golden has, as ``ARMVM_*`` variables."""
    found = {
        one.variable: one.write(value)
        for one in SETTINGS.values()
        if (value := getattr(machine, one.field)) is not None and one.key != "ip"
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
    process.detach(programs.own(*words), log, env=environment)
    progress.say(f"baking golden {name} in the background for later machines; log: {log}")
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
    """Remove automatic goldens of this shape that no longer fit the host.

    Those with clones are kept.
    """
    for golden in found:
        if not golden.name.startswith(PREFIX) or golden.mark.shape != shape:
            continue
        pool = pools.find_pool(where.connection, golden.mark.record.pool)
        reason = fits(where, golden)
        if reason is None or (pool is not None and users_of(pool, golden)):
            continue
        progress.say(f"removing golden {golden.name}: {reason}")
        delete_golden(where.connection, golden.name)
