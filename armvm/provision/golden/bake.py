"""Bake a golden: boot a machine, let it become idle, and save it with its memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from armvm.base.errors import ConfigError
from armvm.base.paths import data_dir
from armvm.base.progress import Progress
from armvm.base.signals import shielded
from armvm.guest.cloudinit.credentials import own_key
from armvm.host import confinement
from armvm.host.connection import Domain, Pool
from armvm.host.domain import lifecycle
from armvm.host.domain.golden_domain import (
    Golden,
    Mark,
    find_golden,
    loader_of,
    prepare_definition,
    set_mark,
)
from armvm.host.domain.handle import observed
from armvm.host.domain.instance import observe
from armvm.host.memory import route as memory
from armvm.host.storage import pools, volumes
from armvm.host.xml import to_text
from armvm.images.model import Image
from armvm.provision.golden.fit import check_system, ground_of, shape_of
from armvm.provision.golden.prepare import prepare
from armvm.provision.machine import create, network
from armvm.provision.machine.create import MakeDisk, Where
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.monitor.wait import wait_ready
from armvm.settings.machine import Machine


def golden_machine(machine: Machine) -> Machine:
    """Return the machine to bake: *machine*, with armvm's own key as the only one that may log in.

    Each clone gets its own keys, and the rehearsals need a key that armvm has. Raises ConfigError
    for --fast, and for user-data and a password, which every clone would inherit.
    """
    if machine.fast:
        raise ConfigError(
            "--fast cannot be used for a golden: clones boot with firmware and their own kernel",
            hint="leave out --fast (or use --no-fast); a new clone does not boot at all",
        )
    if machine.network_config is not None:
        raise ConfigError(
            "--network-config cannot be used for a golden: every clone would have its addresses",
            hint="use it for a machine: armvm create --network-config FILE",
        )
    if machine.user_data is not None or machine.password_hash is not None:
        raise ConfigError(
            "--user-data and --password cannot be used for a golden: every clone would get them",
            hint="use them for a machine: armvm create --user-data FILE",
        )
    return replace(machine, ssh_keys=(own_key(data_dir())[1],), own_key=True, ip=None)


def bake(
    where: Where,
    plan: CreatePlan,
    image: Image,
    *,
    timeout: float | None,
    progress: Progress,
    save_image: bool = False,
    disk: MakeDisk | None = None,
) -> Golden:
    """Boot a machine as planned, let it become idle, and save it with its memory as a golden.

    With *save_image*, it uses a save image even if the memory could be shared.

    This takes one cold boot and some seconds. Raises MissingCapability if the host or guest does
    not support goldens, and the errors of creating and waiting. On failure nothing is left behind.
    """
    check_system(plan.source.system)
    first = memory.SAVE_IMAGE if save_image else memory.best(local=where.facts.local)
    return with_fallback(
        first,
        lambda route: _bake(where, plan, image, route, timeout, progress, disk),
        progress,
    )


def with_fallback(first: str, attempt: Callable[[str], Golden], progress: Progress) -> Golden:
    """Return the golden that *attempt* makes by the route *first*, or else by the save image.

    The second attempt boots again. libvirt could save the running guest, but a save image contains
    the name of the machine's memory, and a clone's definition has no memory of that name.
    """
    try:
        return attempt(first)
    except memory.Refused as refused:
        reason = ": ".join(text for text in (refused.message, refused.detail) if text)
        progress.warn(
            f"falling back to a save image, which requires another boot: the golden's memory "
            f"cannot be shared here ({reason}); to skip this attempt next time, use --save-image"
        )
        if refused.hint is not None:
            progress.say(f"to share the memory, create the golden again after: {refused.hint}")
    return attempt(memory.SAVE_IMAGE)


def _bake(
    where: Where,
    plan: CreatePlan,
    image: Image,
    route: str,
    timeout: float | None,
    progress: Progress,
    disk: MakeDisk | None,
) -> Golden:
    """Bake by one route. Raises memory.Refused if the memory cannot be shared."""
    names = volumes.volume_names(plan.machine.name)
    memory_file = str(Path(plan.spec.overlay).with_name(names["memory"]))
    plan = replace(plan, spec=replace(plan.spec, memory_file=memory_file, memory_route=route))
    connection = where.connection
    try:
        with memory.refusals(route):
            domain = create.apply(
                where, plan, image, start=True, progress=progress, whole=False, disk=disk
            )
    except memory.Refused as refused:
        directory = str(Path(memory_file).parent)
        cause, cure = confinement.explain(refused, directory, where.facts)
        raise memory.Refused(cause, hint=cure) from refused
    try:
        wait_ready(connection, plan.machine.name, timeout=timeout, progress=progress, stays=False)
        with progress.task(f"{plan.machine.name}: settling") as task:
            task.update(text="timers, unused blocks, caches")
            prepare(domain, plan)
            task.update(text="saving its memory")
            save(where, domain, plan, image.digest)
    except BaseException:
        with shielded():
            delete_domain(observed(connection, domain))
        raise
    return find_golden(connection, plan.machine.name)


def save(where: Where, domain: Domain, plan: CreatePlan, digest: str) -> None:
    """Save an idle machine's memory and make its domain a golden."""
    connection = where.connection
    pool = pools.ensure_pool(connection, where.pool, where.facts)
    ground = ground_of(where.facts, loader_of(domain))
    ground["QEMU"] = memory.qemu_version(domain)
    lifecycle.suspend(domain)
    instance = observe(domain)
    record = replace(instance.record, creator=None)
    element = prepare_definition(domain)
    route = plan.spec.memory_route
    with memory.refusals(route):
        digest_of_state = memory.route(route).save(connection, pool, domain)
    names = volumes.volume_names(plan.machine.name)
    mark = Mark(
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        shape=shape_of(plan, digest),
        ground=ground,
        state_digest=digest_of_state,
        record=record,
        route=route,
    )
    lifecycle.destroy(domain)
    for what in ("kernel", "initrd"):  # only its own boot needs them
        if (volume := volumes.find_volume(pool, names[what])) is not None:
            volumes.delete_volume(volume)
    set_mark(element, mark)
    network.leave(connection, instance)
    freeze(pool, names["overlay"])
    lifecycle.define(connection, to_text(element), plan.machine.name)


def freeze(pool: Pool, name: str) -> None:
    """Make a golden's disk, the volume *name*, read-only, if this user may change its mode."""
    volume = volumes.find_volume(pool, name)
    if volume is not None:
        with contextlib.suppress(OSError):
            Path(volume.path()).chmod(0o444)
