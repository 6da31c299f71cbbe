"""Create several machines in one call, one after another.

A clone keeps the CPUs busy for a second or two. Two clones at once take as long as two in turn,
so armvm creates them in turn. It also starts cold machines in turn but waits for several at once,
at most as many as the host has CPUs: an emulated boot keeps 1.4 CPUs busy (measured on two CPUs:
one boot in 111 s, two together in 163 s). If all booted at once, all would time out.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from armvm.base.errors import ArmvmError, UsageError
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
from armvm.provision.monitor.wait import default_timeout, wait_up
from armvm.settings.machine import Machine
from armvm.settings.names import check_machine_name, next_name


@dataclass(frozen=True, kw_only=True)
class _Booting:
    """A machine that is booting cold: its plan and its start time (monotonic seconds)."""

    plan: CreatePlan
    instance: Instance
    since: float


def free_names(connection: Connection, prefix: str, count: int) -> list[str]:
    """Return the first *count* unused names of ``PREFIX-01``, ``PREFIX-02``, ….

    Raises ConfigError for an invalid prefix.
    """
    taken = set(domain_names(connection))
    found: list[str] = []
    for _ in range(count):
        name = check_machine_name(next_name(taken, prefix))
        taken.add(name)
        found.append(name)
    return found


def tell_leftovers(connection: Connection, prefix: str, progress: Progress) -> None:
    """Warn about machines ``PREFIX-NN`` that a killed create left, as they occupy names."""
    for one in instances(connection):
        if re.fullmatch(rf"{re.escape(prefix)}-[0-9]+", one.name) and is_left_behind(one):
            progress.warn(
                f"an interrupted armvm left {one.name} behind; delete it: armvm delete {one.name}"
            )


def plans(
    where: Where,
    machine: Machine,
    names: Sequence[str],
    progress: Progress,
    golden: Golden | None = None,
) -> Iterator[CreatePlan]:
    """Yield a plan for *machine* under each of *names*, made when it is requested.

    The image is looked up once, and each warning is printed once.
    """
    if len(names) > 1 and (machine.ip or machine.address) is not None:
        option = "--network-config with a static address" if machine.ip is None else "--ip"
        raise UsageError(
            f"{option} cannot be used with --count: machines cannot share an address",
            hint="leave it out, or create the machines one by one",
        )
    for name in names:  # before the network is used
        check_name(where.connection, name)
    source = find_source(where, machine, progress, golden)
    told: set[str] = set()
    for name in names:
        plan = make_plan(
            where, machine if name == machine.name else replace(machine, name=name), source
        )
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
    warm: Warm,
    tell: Callable[[CreatePlan, Created], None],
) -> None:
    """Create the machines; call *tell* for each once it is complete and, with *wait*, ready.

    After the first failure no further machine is created. Machines that are already booting are
    still waited for, complete machines are kept, and the failure is raised at the end. An
    interruption removes only the machines that are being created or waited for.
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
                    warm=warm,
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
        raise  # the machines are complete: keep them
    except BaseException:  # Ctrl-C, SIGTERM
        for one in booting:
            progress.say(f"interrupted: removing {one.instance.name}")
            try:
                delete_domain(find_machine(where.connection, one.instance.name))
            except ArmvmError as error:  # remove the others all the same
                progress.warn(f"cannot remove {one.instance.name}: {error.message}")
        raise
    for other in failures[1:]:
        progress.warn(other.message)
    if failures:
        raise failures[0]


def _until_failure(
    planned: Iterator[CreatePlan], failures: list[ArmvmError]
) -> Iterator[CreatePlan]:
    """Yield the plans; if planning fails, record the failure and stop."""
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
    """Wait for the machine that was started first, and remove it from the queue.

    Its timeout counts from its start and includes the time spent waiting for other machines.
    """
    first = booting[0]
    name = first.instance.name
    waited = time.monotonic() - first.since
    limit = default_timeout(first.instance) if timeout is None else timeout
    ready = None
    try:
        ready = wait_up(where.connection, name, timeout=max(1.0, limit - waited), progress=progress)
    except ArmvmError as error:  # not ready in time, or cloud-init failed: keep it
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
