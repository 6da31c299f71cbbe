"""``armvm pool fill``: make the ready machines that a golden's pool lacks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from armvm.base.errors import Conflict, DomainError, HostError, NotReady
from armvm.base.paths import state_locked
from armvm.base.progress import Progress
from armvm.base.signals import shielded
from armvm.guest.agents import clone_identity
from armvm.host.agent import channel
from armvm.host.capacity import free_mib
from armvm.host.connection import Domain
from armvm.host.domain import lifecycle
from armvm.host.domain.golden_domain import Golden, find_golden
from armvm.host.domain.handle import observed
from armvm.host.domain.instance import instances, observe, set_record
from armvm.host.domain.metadata import PoolMember
from armvm.provision.access import channel_command
from armvm.provision.golden import clone, pool
from armvm.provision.golden.choose import fits
from armvm.provision.golden.fit import differences, shape_of
from armvm.provision.launch.launch import decide
from armvm.provision.machine.create import Where
from armvm.provision.machine.delete import delete_domain, sweep
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.monitor import login_check
from armvm.settings.machine import Machine

#: Memory that the host keeps beside a new member's, in MiB.
RESERVE_MIB = 512
#: How often a new member is suspended, renewed and runs a command, as when it is taken. QEMU keeps
#: the code that it translates: without this, a taken member's first command takes 0.4 s, with it
#: less than 0.1 s. Meanwhile, the guest ends the login; else it would do so when taken.
_REHEARSALS = 3


def fill(
    where: Where, name: str, machine: Callable[[str], Machine], progress: Progress
) -> list[str]:
    """Make the members that a golden's pool lacks, and remove surplus and old ones.

    *machine* returns the settings of a new member with a name. Returns the names of the new ones.
    One process at a time fills a pool of this user; others wait for it. Raises NotFound, Conflict
    if the golden cannot be used on this host any more (the pool is then emptied), HostError if the
    host is short of memory, StorageError, and the errors of cloning.
    """
    connection = where.connection
    with state_locked(f"pool-{name}.lock"):
        sweep(connection, progress)
        golden = find_golden(connection, name)
        if golden.mark.pool:
            pool.check_route(where, golden)
        reason = fits(where, golden)
        if reason is not None and golden.mark.pool:
            pool.remove(connection, golden)
            raise Conflict(
                f"golden {name} cannot be used: {reason}; its pool was emptied",
                hint=f"create the golden again: armvm golden delete {name}",
            )
        made: list[str] = []
        while True:
            pool.remove(connection, golden, most=golden.mark.pool)
            ready = sum(pool.waits(one, golden) for one in instances(connection))
            if ready >= golden.mark.pool:
                return made
            _check_memory(where, golden)
            made.append(_make(where, golden, machine, progress))
            golden = find_golden(connection, name)  # its size may have changed


def _make(
    where: Where, golden: Golden, machine: Callable[[str], Machine], progress: Progress
) -> str:
    """Make one member: a clone that has its identity and accepts a login, then suspend it."""
    name = f"{golden.name[:48]}-{os.urandom(3).hex()}"
    plan = decide(where, machine(name), progress, golden)
    differs = differences(shape_of(plan, golden.mark.shape["image"]), golden.mark.shape)
    if differs:
        raise Conflict(f"golden {golden.name} cannot be used: it has " + "; ".join(differs))
    being_made = PoolMember(state=golden.mark.state_digest)
    plan = replace(plan, record=replace(plan.record, member=being_made))
    with progress.task(f"{name}: getting ready for the pool of {golden.name}"):
        try:
            domain = clone.make_clone(where, plan, golden, progress, unfinished=True)
        except DomainError as error:  # on a remote host, also after an upgrade of its QEMU
            raise DomainError(
                f"golden {golden.name} cannot be used: {error.message}",
                detail=error.detail,
                hint=error.hint,
            ) from error
        try:
            _prove(where, domain, plan, progress)
            lifecycle.suspend(domain)
            record = observe(domain).record
            set_record(
                domain, replace(record, creator=None, member=replace(being_made, waiting=True))
            )
        except BaseException:
            with shielded():
                delete_domain(observed(where.connection, domain))
            raise
    return name


def _prove(where: Where, domain: Domain, plan: CreatePlan, progress: Progress) -> None:
    """Do with a new member what happens when it is taken: a login, a renewal, a command."""
    machine = observed(where.connection, domain)
    found = clone.reachable(machine)
    if found is None:
        raise NotReady(f"{machine.name} did not get an address")
    login_check.assert_lets_in(machine, found, log=lambda: "", progress=progress, share=False)
    keys = clone.authorized_keys(plan)
    command = channel_command.Command(words=["sleep", "0.5"], user=machine.record.user)
    try:
        for _ in range(_REHEARSALS):
            lifecycle.suspend(domain)
            with channel.talk(where.connection, domain, timeout=clone.PATIENCE) as ask:
                lifecycle.resume(domain)
                clone_identity.renew(ask, user=machine.record.user, keys=keys)
            channel_command.execute(
                *(machine, command), feed=None, stdout=_drop, stderr=_drop, timeout=clone.PATIENCE
            )
    except NotReady as error:
        raise Conflict(
            f"golden {machine.record.golden} cannot have a pool: its guest does not renew clones",
            detail=error.message,
            hint="if an older armvm made it, create it again: armvm golden create",
        ) from error


def _drop(_data: bytes) -> None:
    """Ignore a command's output."""


def _check_memory(where: Where, golden: Golden) -> None:
    """Raise HostError if another machine may take memory that the host does not have."""
    needed = int(golden.mark.shape["memory_mib"]) + RESERVE_MIB
    free = free_mib(where.connection)
    if free < needed:
        raise HostError(
            f"the host has {free} MiB of free memory; another machine of golden {golden.name} "
            f"requires {needed} MiB",
            hint=f"free memory, or keep fewer ready machines: armvm pool set {golden.name} "
            "--size N",
        )
