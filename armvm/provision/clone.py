"""Making a machine from a golden: it is running, itself and reachable in a second or two.

As in `create`, the ordinary definition comes first: its name is the lock, and it is what the
clone returns to when it stops. The golden's memory belongs to its first run alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from armvm.errors import DomainError
from armvm.guest import rebirth
from armvm.guest.documents import compose
from armvm.guest.seed import seed_image
from armvm.host import channel, lifecycle, memory_cow, storage
from armvm.host.connection import Connection, Domain, Pool, Volume
from armvm.host.domain_xml import build
from armvm.host.forward import ensure_forward
from armvm.host.golden import Golden, definition_of_clone
from armvm.host.instance import set_record
from armvm.host.xml import to_text
from armvm.progress import Progress, size_text
from armvm.provision.create import Where, remove_leftovers
from armvm.provision.creator import myself
from armvm.provision.plan import CreatePlan
from armvm.provision.undo import Undo
from armvm.signals import shielded

#: Seconds that a clone may take for its new identity. It takes tenths; a host with a clone on
#: every CPU is slow.
PATIENCE = 60.0


def make_clone(
    where: Where, plan: CreatePlan, golden: Golden, progress: Progress, *, disposable: bool = False
) -> Domain:
    """Make the machine that *plan* describes from *golden*, running, and return its domain.

    Its identity was read back, and the way to its ssh is open. Any failure leaves nothing of it
    behind. A *disposable* one keeps its maker's name in the metadata, so that it can be told when
    its maker is dead.

    Raises Conflict for a taken name; DomainError, StorageError, NotReady, CommandFailed when it
    cannot be made this way.
    """
    connection, machine, spec = where.connection, plan.machine, plan.spec
    record = replace(
        plan.record,
        image={**plan.record.image, "digest": golden.mark.shape["image"]},
        golden=golden.name,
    )
    remove_leftovers(connection, machine.name, progress)
    pool = storage.ensure_pool(connection, where.pool, where.facts)
    begun = replace(record, creator=myself())
    with Undo(progress) as undo:
        with shielded():
            domain = lifecycle.define(connection, to_text(build(spec, begun)), machine.name)
            undo.add(lambda: lifecycle.undefine(domain))
        undo.add(lambda: storage.delete_machine_volumes(pool, machine.name))
        _make_volumes(connection, pool, plan, golden)
        names = storage.volume_names(golden.name)
        state = storage.read_volume(connection, _volume(pool, names["state"]))
        element = definition_of_clone(golden, spec, begun, disposable=disposable)
        memory_cow.clone_arguments(element, _volume(pool, names["memory"]).path())
        undo.add(lambda: lifecycle.destroy(domain))
        clone = memory_cow.load(connection, element, state)
        lifecycle.resume(clone)
        _be_reborn(connection, clone, plan, progress)
        # Only now can anybody reach it. Its ssh server listens: the golden was logged in to.
        if record.forward is not None:
            record = replace(record, forward=ensure_forward(clone, record.forward, ()))
        set_record(clone, replace(record, creator=begun.creator) if disposable else record)
    return clone


def seed_of(plan: CreatePlan) -> bytes:
    """Return the seed of a planned machine."""
    return seed_image(
        compose(plan.machine, plan.identity, plan.record.user, clone=runs_in_background(plan))
    )


def runs_in_background(plan: CreatePlan) -> bool:
    """Tell whether a clone as planned needs a run of cloud-init: it has user-data of its own."""
    return plan.machine.user_data is not None


def authorized_keys(plan: CreatePlan) -> Sequence[str]:
    """Return the keys that may log in to a planned machine."""
    return plan.machine.ssh_keys


def _make_volumes(connection: Connection, pool: Pool, plan: CreatePlan, golden: Golden) -> None:
    machine, names = plan.machine, storage.volume_names(plan.machine.name)
    storage.delete_machine_volumes(pool, machine.name)
    theirs = storage.volume_names(golden.name)
    # The guest has the size of its golden's seed in mind until it boots again.
    size = storage.physical_size(_volume(pool, theirs["seed"]))
    seed = seed_of(plan)
    if len(seed) > size:
        room, needed = size_text(size), size_text(len(seed))
        raise DomainError(f"it has room for a seed of {room}, and {needed} are needed")
    storage.write_volume(connection, pool, names["seed"], seed, size=size)
    storage.create_overlay(pool, names["overlay"], _volume(pool, theirs["overlay"]), machine.disk)


def _volume(pool: Pool, name: str) -> Volume:
    volume = storage.find_volume(pool, name)
    if volume is None:
        raise DomainError(f"the pool has no volume {name} any more")
    return volume


def _be_reborn(connection: Connection, clone: Domain, plan: CreatePlan, progress: Progress) -> None:
    """Give a clone that has just been resumed its identity, and see that it has taken it."""
    with channel.talk(connection, clone, timeout=PATIENCE) as ask:
        order = rebirth.make_order(
            plan.machine.name,
            plan.identity,
            user=plan.record.user,
            keys=authorized_keys(plan),
            password_hash=plan.machine.password_hash,
            full=runs_in_background(plan),
        )
        facts = rebirth.read_facts(ask(json.dumps(order).encode()).decode(errors="replace"))
        behind = rebirth.set_clock(facts, ask)
        rebirth.check(order, facts)
    if behind > rebirth.CLOCK_TOLERANCE:
        progress.warn(f"this host is slow: the guest's clock may be {behind:.1f} s behind")
