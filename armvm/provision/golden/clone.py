"""Making a machine from a golden: it is running, itself and reachable in a second or two.

As in `create`, the ordinary definition comes first: its name is the lock, and it is what the
clone returns to when it stops. The golden's memory belongs to its first run alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from armvm.base.errors import DomainError
from armvm.base.progress import Progress, size_text
from armvm.base.signals import shielded
from armvm.guest.agents import clone_identity
from armvm.guest.boot.ready import is_up
from armvm.guest.cloudinit.documents import compose
from armvm.guest.cloudinit.seed import seed_image
from armvm.host.agent import channel
from armvm.host.connection import Connection, Domain, Pool
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import build
from armvm.host.domain.golden_domain import Golden, definition_of_clone, nvram_size
from armvm.host.domain.instance import Instance, set_record
from armvm.host.memory import route as memory
from armvm.host.network.link import set_link
from armvm.host.network.ssh_forward import ensure_forward
from armvm.host.storage import pools, volumes
from armvm.host.xml import to_text
from armvm.provision.access.ssh import LOOPBACK, Endpoint, answers, endpoint
from armvm.provision.machine import network
from armvm.provision.machine.create import Where, remove_leftovers
from armvm.provision.machine.own_disk import assert_nobodys
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.undo import Undo
from armvm.provision.machine.unfinished import myself

#: Seconds that a clone may take for its new identity. It takes tenths; a host with a clone on
#: every CPU is slow.
PATIENCE = 60.0
#: The unit in which a clone's disk grows, in bytes. A clone writes little in many places (its
#: identity): with QEMU's 64 KiB each costs four times as much.
CLUSTER = 16 << 10
#: Seconds between two looks for a clone's address, and for its kernel to refuse a connection.
_POLL, _CONNECT = 0.03, 0.25


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
    pool = pools.ensure_pool(connection, where.pool, where.facts)
    begun = replace(record, creator=myself())
    flash = None if disposable else nvram_size(golden)
    if flash is not None:
        # Made here as a hole, which the state fills; libvirt would copy its template first.
        names = volumes.volume_names(machine.name)
        spec = replace(spec, nvram=str(PurePosixPath(spec.overlay).with_name(names["nvram"])))
    with Undo(progress) as undo:
        with shielded():
            domain = lifecycle.define(connection, to_text(build(spec, begun)), machine.name)
            undo.add(lambda: lifecycle.undefine(domain))
        assert_nobodys(connection, pool, machine.name)
        undo.add(lambda: volumes.delete_machine_volumes(pool, machine.name))
        _make_volumes(connection, pool, plan, golden)
        if flash is not None:
            volumes.create_hole(pool, volumes.volume_names(machine.name)["nvram"], flash)
        network.join(connection, where.facts, spec, progress, undo)
        element = definition_of_clone(golden, spec, begun, disposable=disposable)
        undo.add(lambda: lifecycle.destroy(domain))
        route = memory.route(golden.mark.route)
        clone = route.load(connection, pool, golden.name, element)
        if not where.facts.local or "QEMU" not in golden.mark.ground:
            _check_qemu(clone, golden)  # its file was not compared
        lifecycle.resume(clone)
        mac = None if spec.network is None else (golden.mac, spec.mac)
        _take_identity(connection, clone, plan, mac, progress)
        # Only now can anybody reach it. Its ssh server listens: the golden was logged in to.
        if spec.network is not None:
            set_link(clone, up=True)
        if record.forward is not None:
            record = replace(record, forward=ensure_forward(clone, record.forward, ()))
        set_record(clone, replace(record, creator=begun.creator) if disposable else record)
    return clone


def reachable(domain: Domain, instance: Instance, *, timeout: float = PATIENCE) -> Endpoint | None:
    """Wait until a clone has its address, and return where its ssh is; None when it never has.

    With user networking it always has one. Its ssh server listens: the golden was logged in to.
    """
    end = time.monotonic() + timeout
    while True:
        found = endpoint(domain, instance)
        if found is not None and (found.host == LOOPBACK or _is_up(found)):
            return found
        if time.monotonic() > end:
            return None
        time.sleep(_POLL)


def _is_up(where: Endpoint) -> bool:
    """Tell whether a clone has its address; through a jump only its ssh server can be asked."""
    return is_up(where.host, _CONNECT) if where.jump is None else answers(where)


def seed_of(plan: CreatePlan) -> bytes:
    """Return the seed of a planned machine."""
    return seed_image(
        compose(
            plan.machine,
            plan.identity,
            plan.record.user,
            system=plan.source.system,
            clone=runs_in_background(plan),
        )
    )


def runs_in_background(plan: CreatePlan) -> bool:
    """Tell whether a clone as planned needs a run of cloud-init: it has user-data of its own."""
    return plan.machine.user_data is not None


def authorized_keys(plan: CreatePlan) -> Sequence[str]:
    """Return the keys that may log in to a planned machine."""
    return plan.machine.ssh_keys


def _make_volumes(connection: Connection, pool: Pool, plan: CreatePlan, golden: Golden) -> None:
    machine, names = plan.machine, volumes.volume_names(plan.machine.name)
    volumes.delete_machine_volumes(pool, machine.name)
    theirs = volumes.volume_names(golden.name)
    # The guest has the size of its golden's seed in mind until it boots again.
    size = volumes.physical_size(volumes.need_volume(pool, theirs["seed"]))
    seed = seed_of(plan)
    if len(seed) > size:
        room, needed = size_text(size), size_text(len(seed))
        raise DomainError(f"it has room for a seed of {room}, and {needed} are needed")
    volumes.write_volume(connection, pool, names["seed"], seed, size=size)
    below = volumes.need_volume(pool, theirs["overlay"])
    volumes.create_overlay(pool, names["overlay"], below, machine.disk, cluster=CLUSTER)


def _check_qemu(clone: Domain, golden: Golden) -> None:
    version, before = memory.qemu_version(clone), golden.mark.ground.get("QEMU version")
    if before is not None and version != before:
        raise DomainError(f"it was made by QEMU {before}, this is {version}")


def _take_identity(
    connection: Connection,
    clone: Domain,
    plan: CreatePlan,
    mac: tuple[str, str] | None,
    progress: Progress,
) -> None:
    """Give a clone that has just been resumed its identity, and see that it has taken it."""
    with channel.talk(connection, clone, timeout=PATIENCE) as ask:
        order = clone_identity.make_order(
            plan.machine.name,
            plan.identity,
            user=plan.record.user,
            keys=authorized_keys(plan),
            mac=mac,
            password_hash=plan.machine.password_hash,
            full=runs_in_background(plan),
        )
        facts = clone_identity.read_facts(ask(json.dumps(order).encode()).decode(errors="replace"))
        behind = clone_identity.set_clock(facts, ask)
        clone_identity.check(order, facts)
    if behind > clone_identity.CLOCK_TOLERANCE:
        progress.warn(f"this host is slow: the guest's clock may be {behind:.1f} s behind")
