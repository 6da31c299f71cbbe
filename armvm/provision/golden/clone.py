"""Create a machine from a golden: running, with its own identity, in a second or two.

As in `create`, the ordinary definition comes first. Its name serves as the lock, and the clone
uses it after its first stop. Only the first run uses the golden's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from armvm.base.errors import DomainError, MissingCapability
from armvm.base.poll import until
from armvm.base.progress import Progress, size_text
from armvm.base.signals import shielded
from armvm.guest.agents import clone_identity
from armvm.guest.boot.ready import is_up
from armvm.host.agent import channel
from armvm.host.connection import Connection, Domain, Pool
from armvm.host.domain import disks, lifecycle
from armvm.host.domain.domain_xml import build
from armvm.host.domain.golden_domain import Golden, definition_of_clone, nvram_size
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import set_record
from armvm.host.domain.shared_directories import free_ports
from armvm.host.memory import route as memory
from armvm.host.network.link import set_link
from armvm.host.network.ssh_forward import ensure_forward
from armvm.host.storage import pools, volumes
from armvm.host.xml import to_text
from armvm.provision.access.ssh import LOOPBACK, Endpoint, answers, endpoint
from armvm.provision.golden.fit import ground_in
from armvm.provision.machine import network
from armvm.provision.machine.create import Where, remove_leftovers
from armvm.provision.machine.own_disk import clear_volumes, delete_machine_volumes
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.undo import Undo
from armvm.provision.machine.unfinished import myself

#: Timeout in seconds for a clone to take its new identity. It usually takes tenths of a second,
#: but a host with a clone on every CPU is slow.
PATIENCE = 60.0
#: Cluster size of a clone's disk, in bytes. A clone writes its identity in many small pieces; with
#: QEMU's default of 64 KiB each piece takes four times as much space.
CLUSTER = 16 << 10
#: Seconds between two checks for a clone's address, and timeout of each connection attempt.
_POLL, _CONNECT = 0.03, 0.25


def make_clone(
    where: Where,
    plan: CreatePlan,
    golden: Golden,
    progress: Progress,
    *,
    disposable: bool = False,
    unfinished: bool = False,
) -> Domain:
    """Create and start the machine that *plan* describes from *golden*; return its domain.

    The clone's identity has been verified and its ssh port is open. On failure nothing is left
    behind. A *disposable* clone keeps its creator in the metadata, so that a later armvm can see
    whether that process is dead. It uses its golden's seed if it has no user-data, and gets no
    port forward (`access.ssh.reach` adds it). An *unfinished* one keeps its creator too.

    Raises Conflict for a taken name, and DomainError, StorageError, NotReady or CommandFailed if
    cloning fails.
    """
    connection, machine, spec = where.connection, plan.machine, plan.spec
    record = replace(
        plan.record,
        image={**plan.record.image, "digest": golden.mark.shape["image"]},
        golden=golden.name,
    )
    _check_ports(golden, len(spec.disks))
    remove_leftovers(connection, machine.name, progress)
    pool = pools.ensure_pool(connection, where.pool, where.facts)
    begun = replace(record, creator=myself())
    flash = None if disposable else nvram_size(golden)
    if flash is not None:
        # A sparse file, which the saved state fills; libvirt would first copy its template.
        names = volumes.volume_names(machine.name)
        spec = replace(spec, nvram=str(PurePosixPath(spec.overlay).with_name(names["nvram"])))
    with Undo(progress) as undo:
        with shielded():
            domain = lifecycle.define(connection, to_text(build(spec, begun)), machine.name)
            undo.add(lambda: lifecycle.undefine(domain))
        clear_volumes(connection, pool, machine.name)
        undo.add(lambda: delete_machine_volumes(pool, machine.name))
        own_seed = not disposable or runs_in_background(plan)
        _make_volumes(connection, pool, plan, golden, with_seed=own_seed)
        if flash is not None:
            volumes.create_hole(pool, volumes.volume_names(machine.name)["nvram"], flash)
        network.join(connection, where.facts, spec, progress, undo, address=machine.ip)
        if not own_seed:
            spec = replace(spec, seed=golden.seed)
        element = definition_of_clone(golden, spec, begun, disposable=disposable)
        undo.add(lambda: lifecycle.destroy(domain))
        route = memory.route(golden.mark.route)
        clone = route.load(connection, pool, golden.name, element)
        _check_qemu(clone, golden)  # the only comparison on a remote host
        lifecycle.resume(clone)
        macs = [
            (before.mac, card.mac)
            for before, card in zip(golden.cards, spec.cards, strict=True)
            if not card.is_user
        ]
        _take_identity(connection, clone, plan, macs, progress)
        # The network is connected only now. The ssh server listens already, as in the golden.
        set_link(clone, up=True)
        disks.plug(clone, spec.disks)
        if not disposable:
            if record.forward is not None:
                record = replace(record, forward=ensure_forward(clone, record.forward, ()))
            set_record(clone, replace(record, creator=begun.creator) if unfinished else record)
    return clone


def reachable(machine: Handle, *, timeout: float = PATIENCE) -> Endpoint | None:
    """Wait until a clone has its address; return its ssh endpoint, or None after *timeout*.

    With user networking the address is known at once. The ssh server listens already, because
    armvm logged in to the golden.
    """

    def up() -> Endpoint | None:
        found = endpoint(machine)
        return found if found and (found.host == LOOPBACK or _is_up(found)) else None

    return until(up, timeout=timeout, interval=_POLL)


def _is_up(where: Endpoint) -> bool:
    """Return whether a clone has its address; through a jump host, whether its ssh answers."""
    return is_up(where.host, _CONNECT) if where.jump is None else answers(where)


def seed_of(plan: CreatePlan) -> bytes:
    """Return the seed of a planned machine."""
    from armvm.guest.cloudinit.documents import compose  # a temporary clone needs none of it
    from armvm.guest.cloudinit.seed import seed_image

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
    """Return whether the planned clone runs cloud-init, because it has its own user-data."""
    return plan.machine.user_data is not None


def authorized_keys(plan: CreatePlan) -> Sequence[str]:
    """Return the keys that may log in to a planned machine."""
    return plan.machine.ssh_keys


def _check_ports(golden: Golden, count: int) -> None:
    """Raise MissingCapability if a clone has fewer free PCIe ports than further disks."""
    free = free_ports(golden.definition)
    if count > free:
        raise MissingCapability(f"its clones have {free} free PCIe ports, for {count} disks")


def _make_volumes(
    connection: Connection, pool: Pool, plan: CreatePlan, golden: Golden, *, with_seed: bool
) -> None:
    machine, names = plan.machine, volumes.volume_names(plan.machine.name)
    theirs = volumes.volume_names(golden.name)
    if with_seed:
        # The guest caches the size of the golden's seed until it boots again.
        size = volumes.physical_size(volumes.need_volume(pool, theirs["seed"]))
        seed = seed_of(plan)
        if len(seed) > size:
            room, needed = size_text(size), size_text(len(seed))
            raise DomainError(f"its seed volume holds {room}, but {needed} is required")
        volumes.write_volume(connection, pool, names["seed"], seed, size=size)
    below = volumes.need_volume(pool, theirs["overlay"])
    volumes.create_overlay(pool, names["overlay"], below, machine.disk, cluster=CLUSTER)
    if machine.disks:
        from armvm.provision.machine.disks import create_disks

        create_disks(pool, machine.name, machine.disks)


def _check_qemu(clone: Domain, golden: Golden) -> None:
    version, before = memory.qemu_version(clone), ground_in(golden).get("QEMU")
    if before is not None and version != before:
        raise DomainError(
            f"QEMU {version} here, {before} where it was made",
            hint=f"create the golden again: armvm golden delete {golden.name}",
        )


def _take_identity(
    connection: Connection,
    clone: Domain,
    plan: CreatePlan,
    macs: Sequence[tuple[str, str]],
    progress: Progress,
) -> None:
    """Give a clone that was just resumed its identity, and verify that it took it."""
    with channel.talk(connection, clone, timeout=PATIENCE) as ask:
        order = clone_identity.make_order(
            plan.machine.name,
            plan.identity,
            user=plan.record.user,
            keys=authorized_keys(plan),
            macs=macs,
            password_hash=plan.machine.password_hash,
            full=runs_in_background(plan),
        )
        facts = clone_identity.read_facts(
            ask(clone_identity.request(order)).decode(errors="replace")
        )
        behind = clone_identity.set_clock(facts, ask)
        clone_identity.check(order, facts)
    tell_clock(behind, progress)


def tell_clock(behind: float, progress: Progress) -> None:
    """Warn if a guest's clock may be *behind*, in seconds."""
    if behind > clone_identity.CLOCK_TOLERANCE:
        progress.warn(f"this host is slow: the guest's clock may be {behind:.1f} s behind")
