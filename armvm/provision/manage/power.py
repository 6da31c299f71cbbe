"""Restart, suspend and resume a machine, and start it with the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from armvm.base.errors import ArmvmError, DomainError
from armvm.base.progress import Progress
from armvm.host.connection import Connection, Domain, is_session, uri_of
from armvm.host.domain import lifecycle, power
from armvm.host.domain.events import listening
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance
from armvm.provision.machine import shared_connection
from armvm.provision.manage import machines
from armvm.provision.manage.machines import STOP_TIMEOUT
from armvm.provision.monitor.wait import default_timeout, wait_up

#: Allowed difference between the guest's clock and the host's after setting it, in seconds.
CLOCK_TOLERANCE = 2.0
_PAUSED = "paused"


@dataclass(frozen=True, kw_only=True)
class Started:
    """Machines that were started in turn, their start times, and the failures."""

    instances: list[Instance] = field(default_factory=list)
    since: dict[str, float] = field(default_factory=dict)
    failures: list[ArmvmError] = field(default_factory=list)

    def wait(
        self,
        connection: Connection,
        *,
        timeout: float | None,
        progress: Progress,
        tell: Callable[[str, bool], None],
    ) -> None:
        """Wait *timeout* seconds for each machine; tell each one's name and whether it is ready.

        One without a seed only shows a login prompt.
        """
        for one in self.instances:
            limit = default_timeout(one) if timeout is None else timeout
            left = max(1.0, limit - (time.monotonic() - self.since[one.name]))
            try:
                ready = wait_up(connection, one.name, timeout=left, progress=progress)
            except ArmvmError as error:  # keep waiting for the others
                self.failures.append(error)
            else:
                tell(one.name, ready is not None)
        for other in self.failures[1:]:
            progress.warn(other.message)

    def assert_all(self) -> None:
        """Raise the first failure, if there is one."""
        if self.failures:
            raise self.failures[0]


def start_all(chosen: Sequence[Handle], progress: Progress) -> Started:
    """Start machines. Stop at the first failure; the machines before it keep running."""
    started = Started()
    for machine in chosen:
        try:
            begun = machines.start(machine, progress)
        except ArmvmError as error:
            started.failures.append(error)
            break
        started.instances.append(begun)
        started.since[begun.name] = time.monotonic()
    return started


def restart(
    machine: Handle,
    *,
    force: bool,
    timeout: float | None,
    progress: Progress,
) -> None:
    """Ask a running machine to restart, or with *force* reset it, and wait until it has.

    Then ends the shared connections to it.

    Open the connection with `armvm.provision.monitor.events.connect`. Raises DomainError for
    a machine that is off or suspended, NotReady after *timeout* seconds.
    """
    paused = _assert_restartable(machine, force=force)
    limit = STOP_TIMEOUT * machine.patience if timeout is None else timeout
    with (
        progress.task(f"restarting {machine.name}"),
        listening(machine.connection, machine.domain) as wait,
    ):
        if force:
            power.reset(machine.domain, wait, limit)
            if paused:
                lifecycle.resume(machine.domain)
        else:
            power.reboot(machine.domain, wait, limit)
    shared_connection.close(machine.instance.uuid)


def power_cycle(
    machine: Handle,
    *,
    force: bool,
    timeout: float | None,
    progress: Progress,
) -> None:
    """Shut a running machine down, or with *force* power it off, and start it in a new QEMU.

    Raises the errors of `restart`, and those of stop and start.
    """
    _assert_restartable(machine, force=force)
    with progress.task(f"stopping {machine.name}"):
        machines.stop(machine, force=force, timeout=timeout)
    machines.start(machine.again(), progress)


def _assert_restartable(machine: Handle, *, force: bool) -> bool:
    """Raise DomainError if a machine is off, or suspended without *force*.

    Returns whether it is suspended.
    """
    machine.require_running()
    paused = machine.instance.state == _PAUSED
    if paused and not force:
        raise DomainError(
            f"{machine.name} is suspended",
            hint=f"resume it first: armvm resume {machine.name}; or reset it with --force",
        )
    return paused


def suspend(machine: Handle) -> None:
    """Stop a running machine's CPUs; does nothing if it is suspended."""
    machine.require_running()
    if machine.instance.state != _PAUSED:
        lifecycle.suspend(machine.domain)


def resume(machine: Handle, progress: Progress) -> None:
    """Resume a suspended machine and set its clock; does nothing if it is running."""
    machine.require_running()
    if machine.instance.state != _PAUSED:
        return
    lifecycle.resume(machine.domain)
    behind = power.set_clock(machine.domain)
    if behind is None:
        progress.warn(
            "the guest agent does not answer: the guest's clock is behind until the guest sets it"
        )
    elif abs(behind) > CLOCK_TOLERANCE:
        progress.warn(f"the guest's clock is {behind:.0f} s behind")


def autostart(connection: Connection, domain: Domain, *, on: bool) -> str:
    """Set whether a machine starts with the host; return the effect in words."""
    power.set_autostart(domain, on=on)
    if not on:
        return f"{domain.name()} no longer starts automatically"
    if is_session(uri_of(connection)):
        return f"{domain.name()} starts with your libvirt daemon, at its first use after a login"
    return f"{domain.name()} starts with the host's libvirt daemon"
