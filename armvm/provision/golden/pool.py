"""``armvm pool``: clones of a golden that are made in advance, and taken by `create` and `run`.

A member is an ordinary clone that has its identity and was then suspended. Its record says which
golden state it was made from and that it waits. The state is in libvirt alone: members can be taken
by any user of the same libvirt, also from afar.

Whoever takes a member opens its first channel, which libvirt gives to one client at a time, and
marks it as taken while the channel is open. If that process is killed, libvirt closes the channel:
either the member still waits, or it has the mark of a process that is dead, and the next command
removes it (`machine.delete.sweep`).
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, replace
from typing import Annotated

from armvm.base import process, programs
from armvm.base.errors import ArmvmError, Conflict, NotFound
from armvm.base.paths import private_dir, state_dir
from armvm.base.progress import Progress
from armvm.base.result import Doc, MachineName
from armvm.base.signals import shielded
from armvm.guest.agents import clone_identity
from armvm.host.agent import channel
from armvm.host.connection import Connection, Domain
from armvm.host.domain import lifecycle
from armvm.host.domain.golden_domain import Golden, change_mark, find_golden, goldens
from armvm.host.domain.handle import observed
from armvm.host.domain.instance import (
    Instance,
    find_by_uuid,
    instances,
    observe,
    set_record,
    suspended,
)
from armvm.host.domain.metadata import PoolMember
from armvm.host.domain.stats import resident_mib
from armvm.provision.golden.choose import fits, route_lacks, unusable
from armvm.provision.golden.clone import PATIENCE, authorized_keys, tell_clock
from armvm.provision.machine.create import Where
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.unfinished import is_left_behind, myself


@dataclass(frozen=True, kw_only=True)
class PoolState:
    """The pool of a golden."""

    golden: Annotated[MachineName, Doc("The golden's name.")]
    size: Annotated[int, Doc("How many ready machines to keep.")]
    ready: Annotated[int, Doc("How many are ready.")]
    starting: Annotated[int, Doc("How many are being made.")]
    machines: Annotated[list[str], Doc("The names of the ready machines.")]
    memory_mib: Annotated[int, Doc("Memory of the host that the ready machines take, in MiB.")]
    why_not: Annotated[str | None, Doc("Why the golden cannot be used; null: it can.")]


def set_size(where: Where, name: str, size: int) -> Golden:
    """Record how many members a golden's pool has, and return the golden.

    Raises NotFound, and Conflict if this connection cannot make members.
    """
    golden = find_golden(where.connection, name)
    if size:
        check_route(where, golden)
    if golden.mark.pool == size:
        return golden
    change_mark(where.connection, golden, replace(golden.mark, pool=size))
    return find_golden(where.connection, name)


def check_route(where: Where, golden: Golden) -> None:
    """Raise Conflict if the golden's memory cannot be used over this connection.

    Its pool is left as it is: the golden may fit on the host itself.
    """
    reason = route_lacks(where, golden)
    if reason is not None:
        raise Conflict(
            f"golden {golden.name} cannot be used: {reason}",
            hint="run armvm on that host, or create the golden with --save-image",
        )


def states(where: Where) -> list[PoolState]:
    """Return the pools, by their goldens' names."""
    everybody = instances(where.connection)
    found = []
    for golden in goldens(where.connection):
        members = [one for one in everybody if is_member(one, golden)]
        if golden.mark.pool or members:
            waiting = [one for one in members if waits(one, golden)]
            found.append(
                PoolState(
                    golden=golden.name,
                    size=golden.mark.pool,
                    ready=len(waiting),
                    starting=sum(_is_being_made(one) for one in members),
                    machines=[one.name for one in waiting],
                    memory_mib=_memory_mib(where.connection, waiting),
                    why_not=unusable(where, golden),
                )
            )
    return found


def is_member(instance: Instance, golden: Golden) -> bool:
    """Return whether a machine was made for a golden's pool, and nobody keeps it."""
    return instance.record.member is not None and instance.record.golden == golden.name


def waits(instance: Instance, golden: Golden) -> bool:
    """Return whether a machine can be taken from a golden's pool."""
    wanted = PoolMember(state=golden.mark.state_digest, waiting=True)
    return (
        instance.suspended
        and instance.record.member == wanted
        and instance.record.golden == golden.name
    )


def take(where: Where, plan: CreatePlan, golden: Golden, progress: Progress) -> Domain | None:
    """Take a ready machine with the planned settings; it runs. Return None if there is none.

    Its clock and random numbers are renewed, and the plan's keys may log in. It keeps the mark of
    this process until `keep`.
    """
    wanted = plan.machine
    if wanted.user_data or wanted.password_hash or wanted.network_config or wanted.disks:
        return None
    waiting = suspended(where.connection)
    random.shuffle(waiting)  # two processes seldom try the same first
    for domain in waiting:
        try:
            instance = observe(domain)
            if not waits(instance, golden) or not _suits(instance, plan):
                continue
            _hand_over(where, domain, plan, golden, progress)
        except (NotFound, Conflict):  # another process was faster
            continue
        except ArmvmError as error:
            progress.say(f"{domain.name()} from the pool cannot be used: {error.message}")
            continue
        return domain
    return None


def keep(domain: Domain) -> None:
    """Make a machine that was taken an ordinary one, which stays when this process ends."""
    set_record(domain, replace(observe(domain).record, member=None, creator=None))


def _hand_over(
    where: Where, domain: Domain, plan: CreatePlan, golden: Golden, progress: Progress
) -> None:
    """Take one member and resume it. Raises Conflict if another process has taken it."""
    connection = where.connection
    with channel.talk(connection, domain, timeout=PATIENCE, force=False) as ask:
        instance = observe(domain)
        if not waits(instance, golden):
            raise Conflict(f"{instance.name} was taken by another process")
        record = replace(
            instance.record,
            member=PoolMember(state=golden.mark.state_digest, taken=True),
            creator=myself(),
            created=plan.record.created,
            own_key=plan.record.own_key,
            key=plan.record.key,
        )
        try:
            set_record(domain, record)
            lifecycle.resume(domain)
            behind = clone_identity.renew(ask, user=record.user, keys=authorized_keys(plan))
        except BaseException:
            with shielded():
                delete_domain(observed(connection, domain))
            raise
    tell_clock(behind, progress)


def _suits(instance: Instance, plan: CreatePlan) -> bool:
    """Return whether a member is what a plan would make, except for its name and keys."""
    record, wanted = instance.record, plan.record
    return (
        record.settings == wanted.settings
        and (record.user, record.pool) == (wanted.user, wanted.pool)
        and instance.network == plan.spec.network
    )


def remove(connection: Connection, golden: Golden, *, most: int = 0) -> list[str]:
    """Remove the golden's members until *most* are left; return the names of those removed.

    Members of an earlier state of the golden, and those that a stopped host left, are removed in
    every case. A member that is being taken or made is left to whoever does that.
    """
    removed, left = [], 0
    for one in instances(connection):
        if not is_member(one, golden):
            continue
        usable = waits(one, golden)
        if usable and left < most:
            left += 1
        elif _removed(connection, one, usable=usable):
            removed.append(one.name)
    return removed


def can_be_removed(instance: Instance) -> bool:
    """Return whether a member is nobody's: it waits, or whoever made or took it is dead."""
    member = instance.record.member
    return member is not None and (member.waiting or is_left_behind(instance))


def _removed(connection: Connection, instance: Instance, *, usable: bool) -> bool:
    """Remove a member, unless it is somebody's; return whether it was removed."""
    member = instance.record.member
    if member is None or not can_be_removed(instance):
        return False
    if instance.running and not instance.suspended and not is_left_behind(instance):
        return False  # somebody resumed it by other means
    try:
        domain = find_by_uuid(connection, instance.uuid)
        if usable:
            with channel.opened(connection, domain, channel.NAMES[0], force=False):
                now = observe(domain)
                if now.record.member != member or not now.suspended:
                    return False
                taken = replace(member, waiting=False, taken=True)  # nobody else may take it
                set_record(domain, replace(now.record, member=taken, creator=myself()))
        delete_domain(observed(connection, domain))
    except (NotFound, Conflict):
        return False
    return True


def empty_unusable(where: Where, progress: Progress) -> None:
    """Remove the members of goldens that cannot be used on this host any more, and say so."""
    for golden in goldens(where.connection):
        if not golden.mark.pool:
            continue
        reason = fits(where, golden)
        removed = remove(where.connection, golden) if reason is not None else []
        if removed:
            progress.say(f"emptied the pool of golden {golden.name} ({len(removed)}): {reason}")


def refill(where: Where, name: str, progress: Progress) -> None:
    """Start to fill a golden's pool in the background. A failure only prints a warning."""
    try:
        log = private_dir(state_dir()) / f"pool-{name}.log"
        words = ["pool", "fill", name, "--connect", where.facts.uri]
        process.detach(programs.own(*words), log)
    except (ArmvmError, OSError) as error:
        progress.warn(f"cannot fill the pool of golden {name} in the background: {error}")


def _is_being_made(instance: Instance) -> bool:
    member = instance.record.member
    free = member is None or member.waiting or member.taken
    return not free and not is_left_behind(instance)


def _memory_mib(connection: Connection, waiting: list[Instance]) -> int:
    """Return the host's memory that machines take, in MiB. One that was taken counts as none."""
    found = 0
    for one in waiting:
        with contextlib.suppress(NotFound):
            found += resident_mib(find_by_uuid(connection, one.uuid))
    return found
