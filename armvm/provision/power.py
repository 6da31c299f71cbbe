"""Restarting, suspending and resuming a machine, and starting it with the host."""

from __future__ import annotations

from armvm.errors import DomainError
from armvm.host import lifecycle, power
from armvm.host.connection import Connection, Domain, is_session, uri_of
from armvm.host.events import listening
from armvm.host.facts import Accelerator
from armvm.host.instance import Instance
from armvm.progress import Progress
from armvm.provision.machines import STOP_TIMEOUT

#: Seconds by which a guest's clock may differ from the host's after it was set.
CLOCK_TOLERANCE = 2.0
_PAUSED = "paused"


def restart(
    connection: Connection,
    domain: Domain,
    instance: Instance,
    *,
    force: bool,
    timeout: float | None,
    progress: Progress,
) -> None:
    """Ask a running machine to restart, or reset it, and see that it has.

    The connection must have been opened by `armvm.provision.events.connect`. Raises DomainError
    for a machine that is off or suspended, NotReady when *timeout* seconds are over.
    """
    _assert_runs(instance)
    paused = instance.state == _PAUSED
    if paused and not force:
        raise DomainError(
            f"{instance.name} is suspended, and hears nothing",
            hint=f"armvm resume {instance.name}   first, or --force",
        )
    patience = STOP_TIMEOUT * Accelerator(instance.accelerator).patience
    limit = patience if timeout is None else timeout
    with progress.task(f"restarting {instance.name}"), listening(connection, domain) as wait:
        if force:
            power.reset(domain, wait, limit)
            if paused:
                lifecycle.resume(domain)
        else:
            power.reboot(domain, wait, limit)


def suspend(domain: Domain, instance: Instance) -> None:
    """Stop a running machine's CPUs; one that is suspended already is no error."""
    _assert_runs(instance)
    if instance.state != _PAUSED:
        lifecycle.suspend(domain)


def resume(domain: Domain, instance: Instance, progress: Progress) -> None:
    """Let a suspended machine go on, and set its clock. One that runs is no error."""
    _assert_runs(instance)
    if instance.state != _PAUSED:
        return
    lifecycle.resume(domain)
    behind = power.set_clock(domain)
    if behind is None:
        progress.warn("no guest agent answers: the guest's clock is behind until it asks for time")
    elif abs(behind) > CLOCK_TOLERANCE:
        progress.warn(f"the guest's clock is {behind:.0f} s behind")


def autostart(connection: Connection, domain: Domain, *, on: bool) -> str:
    """Have a machine start with the host, or no longer; return what that means in words."""
    power.set_autostart(domain, on=on)
    if not on:
        return f"{domain.name()} no longer starts by itself"
    if is_session(uri_of(connection)):
        return f"{domain.name()} starts with your libvirt daemon: when you use it after a login"
    return f"{domain.name()} starts with the host's libvirt daemon"


def _assert_runs(instance: Instance) -> None:
    if not instance.running:
        raise lifecycle.not_running(instance.name)
