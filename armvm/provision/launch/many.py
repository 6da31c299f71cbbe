"""Several machines in one call, made one after another.

Clones take the CPUs for a second or two each: two at once take as long as both in turn, so they
are made in turn. Cold machines are started in turn too and waited for together, but only so many
as the host has CPUs: an emulated boot keeps 1.4 of them busy (measured on two: one in 111 s, two
together in 163 s), and all at once would let every one time out.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from armvm.base.errors import ArmvmError
from armvm.base.progress import Progress
from armvm.guest.boot.ready import Boot
from armvm.host.connection import Connection
from armvm.host.domain.golden_domain import Golden
from armvm.host.domain.handle import find_machine
from armvm.host.domain.instance import Instance, domain_names, instances
from armvm.provision.golden.choose import Warm
from armvm.provision.launch.launch import Created, find_source, launch
from armvm.provision.machine.create import Where, check_name, make_plan
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.unfinished import is_left_behind
from armvm.provision.monitor.wait import default_timeout, wait_ready
from armvm.settings.machine import Machine
from armvm.settings.names import check_machine_name, next_name


@dataclass(frozen=True, kw_only=True)
class _Booting:
    """A machine that was started cold: the plan it was made by, and when (monotonic seconds)."""

    plan: CreatePlan
    instance: Instance
    since: float


def free_names(connection: Connection, prefix: str, count: int) -> list[str]:
    """Return the first *count* of ``PREFIX-01``, ``PREFIX-02``, … that no domain has.

    Raises ConfigError for a prefix that can begin no machine's name.
    """
    taken = set(domain_names(connection))
    found: list[str] = []
    for _ in range(count):
        name = check_machine_name(next_name(taken, prefix))
        taken.add(name)
        found.append(name)
    return found


def tell_leftovers(connection: Connection, prefix: str, progress: Progress) -> None:
    """Say which machines ``PREFIX-NN`` are what a killed create left: their names stay taken."""
    for one in instances(connection):
        if re.fullmatch(rf"{re.escape(prefix)}-[0-9]+", one.name) and is_left_behind(one):
            progress.warn(
                f"{one.name} is what an interrupted armvm left behind: "
                f"armvm delete {one.name}   removes it"
            )


def plans(
    where: Where,
    machine: Machine,
    names: Sequence[str],
    progress: Progress,
    golden: Golden | None = None,
) -> Iterator[CreatePlan]:
    """Plan a machine like *machine* under each of *names*, each when its turn comes.

    The image is looked up once; what is told of one plan holds for all, and is told once.
    """
    for name in names:  # before an image host is asked, and waited for
        check_name(where.connection, name)
    source = find_source(where, machine, progress, golden)
    told: set[str] = set()
    for name in names:
        plan = make_plan(where, replace(machine, name=name), source)
        for warning in plan.warnings:
            if warning not in told:
                progress.warn(warning)
                told.add(warning)
        yield plan


def launch_all(
    where: Where,
    planned: Iterator[CreatePlan],
    *,
    start: bool,
    wait: bool,
    timeout: float | None,
    progress: Progress,
    wish: Warm,
    tell: Callable[[CreatePlan, Created], None],
) -> None:
    """Make the machines, and *tell* of each once it is whole and, with *wait*, ready.

    The first failure ends it, and is raised: no further machine is begun, those that were are
    still waited for, and whatever is whole stays. An interruption removes the machines under way
    (being made, or being waited for), and no others.
    """
    booting: deque[_Booting] = deque()
    slots = where.facts.online_cpus
    failures: list[ArmvmError] = []
    try:
        for plan in _until_failure(planned, failures):
            if len(booting) == slots:
                _finish(where, booting, timeout, progress, tell, failures)
            if failures:
                break
            try:
                created = launch(
                    where, plan, start=start, wait=False, timeout=timeout, progress=progress,
                    wish=wish,
                )  # fmt: skip
            except ArmvmError as error:
                failures.append(error)
                break
            if created.ready is None and start and wait:
                begun = _Booting(plan=plan, instance=created.instance, since=time.monotonic())
                booting.append(begun)
            else:
                tell(plan, created)
        while booting:
            _finish(where, booting, timeout, progress, tell, failures)
    except Exception:
        raise  # they are whole: they stay
    except BaseException:  # Ctrl-C, SIGTERM
        for one in booting:
            progress.say(f"interrupted: removing {one.instance.name}")
            try:
                delete_domain(find_machine(where.connection, one.instance.name))
            except ArmvmError as error:  # the others must go all the same
                progress.warn(f"could not be removed: {error.message}")
        raise
    for other in failures[1:]:
        progress.warn(other.message)
    if failures:
        raise failures[0]


def _until_failure(
    planned: Iterator[CreatePlan], failures: list[ArmvmError]
) -> Iterator[CreatePlan]:
    """Pass plans on; planning that fails ends them, and is a failure like any other."""
    try:
        yield from planned
    except ArmvmError as error:
        failures.append(error)


def _finish(
    where: Where,
    booting: deque[_Booting],
    timeout: float | None,
    progress: Progress,
    tell: Callable[[CreatePlan, Created], None],
    failures: list[ArmvmError],
) -> None:
    """Wait for the machine that was started first, and take it off the queue.

    Its time has run since it was started, also while others were waited for.
    """
    first = booting[0]
    name = first.instance.name
    waited = time.monotonic() - first.since
    limit = default_timeout(first.instance) if timeout is None else timeout
    ready = None
    try:
        ready = wait_ready(
            where.connection, name, timeout=max(1.0, limit - waited), progress=progress
        )
    except ArmvmError as error:  # not ready in time, or cloud-init failed: it is whole, and stays
        failures.append(error)
    booting.popleft()
    if ready is None:
        tell(first.plan, Created(instance=first.instance, ready=None))
        return
    seen = {stage: at + waited if at else at for stage, at in ready.boot.seen.items()}
    tell(
        first.plan,
        Created(instance=ready.instance, ready=replace(ready, boot=Boot(seen=seen))),
    )
