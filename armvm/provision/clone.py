"""Making a machine from a golden: it is running, itself and reachable in a second or two.

As in `create`, the ordinary definition comes first: its name is the lock, and it is what the
clone returns to when it stops. The golden's memory belongs to its first run alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from armvm.errors import DomainError
from armvm.guest import rebirth
from armvm.guest.documents import compose
from armvm.guest.ready import answers_ssh
from armvm.guest.seed import seed_image
from armvm.host import agent, lifecycle, memory_cow, storage
from armvm.host.connection import Connection, Domain, Pool, Volume
from armvm.host.domain_xml import build
from armvm.host.forward import ensure_forward
from armvm.host.golden import Golden, definition_of_clone
from armvm.host.instance import set_record
from armvm.host.xml import to_text
from armvm.progress import Progress
from armvm.provision.create import Where, remove_leftovers
from armvm.provision.creator import myself
from armvm.provision.plan import CreatePlan
from armvm.provision.ssh import LOOPBACK
from armvm.provision.undo import Undo
from armvm.signals import shielded

#: Seconds that the guest agent may take to answer after the clone was resumed, and seconds for
#: its new identity. Both take tenths; a host with a clone on every CPU is slow.
PATIENCE = 60.0


def make_clone(
    where: Where, plan: CreatePlan, golden: Golden, progress: Progress, *, whole: bool = True
) -> Domain:
    """Make the machine that *plan* describes from *golden*, running, and return its domain.

    Its ssh answers and its identity was read back. Any failure leaves nothing of it behind.
    *whole* false leaves its maker's name in the metadata, as `create.apply` does.

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
        element = definition_of_clone(golden, spec, begun)
        memory_cow.clone_arguments(element, _volume(pool, names["memory"]).path())
        undo.add(lambda: lifecycle.destroy(domain))
        clone = memory_cow.load(connection, element, state)
        lifecycle.resume(clone)
        _be_reborn(clone, plan, golden)
        # Only now can anybody reach it.
        if record.forward is not None:
            port = ensure_forward(clone, record.forward, ())
            record = replace(record, forward=port)
            wait_for_ssh(port, machine.name)
        set_record(clone, record if whole else replace(record, creator=begun.creator))
    return clone


def wait_for_ssh(port: int, name: str) -> None:
    """Wait until a clone's ssh server answers. Raises DomainError when it does not."""
    end = time.monotonic() + PATIENCE
    while not answers_ssh(LOOPBACK, port):
        if time.monotonic() > end:
            raise DomainError(f"{name} runs, but its ssh server does not answer")
        time.sleep(0.05)


def seed_of(plan: CreatePlan) -> bytes:
    """Return the seed of a planned machine."""
    return seed_image(compose(plan.machine, plan.identity, plan.record.user))


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
        raise DomainError(f"its seed is larger than that of the golden {golden.name}")
    storage.write_volume(connection, pool, names["seed"], seed.ljust(size, b"\0"))
    storage.create_overlay(pool, names["overlay"], _volume(pool, theirs["overlay"]), machine.disk)


def _volume(pool: Pool, name: str) -> Volume:
    volume = storage.find_volume(pool, name)
    if volume is None:
        raise DomainError(f"the pool has no volume {name} any more")
    return volume


def _be_reborn(clone: Domain, plan: CreatePlan, golden: Golden) -> None:
    """Give a clone that has just been resumed its identity, and see that it has taken it."""
    agent.wait_until_answers(clone, timeout=PATIENCE)
    order = rebirth.make_order(
        plan.machine.name, plan.identity, user=plan.record.user, keys=authorized_keys(plan)
    )
    agent.write_file(clone, rebirth.FIFO, json.dumps(order).encode())
    answer = agent.outcome(clone, golden.mark.resident, timeout=PATIENCE)
    rebirth.check(order, rebirth.read_facts(answer))
