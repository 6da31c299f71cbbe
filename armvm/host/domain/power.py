"""Restart a running domain, set its clock after a pause, and start it with the host."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import libvirt
import libvirt_qemu

from armvm.base.errors import DomainError, NotReady
from armvm.host.agent import agent
from armvm.host.connection import Domain, errors
from armvm.host.domain.events import REBOOTED, Wait

#: Seconds between requests to a guest that has only an ACPI button: one that has just booted
#: misses the first press.
ASK_AGAIN = 15.0
#: Seconds for an agent to accept a command that it does not answer.
_NO_ANSWER = 2


def reboot(
    domain: Domain,
    wait: Wait,
    timeout: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Ask the guest to restart, by its agent or else by ACPI, and wait until it has.

    QEMU reports the reset. *timeout* is in seconds. Raises NotReady on timeout, DomainError if
    the guest shut down instead.
    """
    end = clock() + timeout
    # Do not press the button if the agent took the command: libvirt would remember it, and
    # turn the next power-off into a restart.
    by_agent = _ask_agent(domain)
    asked = float("-inf")
    while True:
        if not by_agent and clock() - asked >= ASK_AGAIN:
            with errors(f"restarting {domain.name()}"):
                domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)
            asked = clock()
        for event in wait(min(ASK_AGAIN, max(end - clock(), 0.0))):
            if event.event == REBOOTED:
                return
            if event.event == "stopped":
                raise DomainError(
                    f"{domain.name()} shut down instead of restarting",
                    hint=f"start it again: armvm start {domain.name()}",
                )
        if clock() >= end:
            raise NotReady(
                f"timed out after {timeout:g} s: {domain.name()} did not restart",
                hint=f"force a reset: armvm restart --force {domain.name()}",
            )


def reset(domain: Domain, wait: Wait, timeout: float) -> None:
    """Press the reset button, and wait until QEMU reports the reset. Raises NotReady."""
    with errors(f"resetting {domain.name()}"):
        domain.reset(0)
    end = time.monotonic() + timeout
    while all(one.event != REBOOTED for one in wait(timeout)):
        if time.monotonic() > end:
            raise NotReady(f"timed out after {timeout:g} s: {domain.name()} was not reset")


def set_clock(domain: Domain) -> float | None:
    """Set a guest's clock to this host's, by its agent.

    Returns how many seconds it is behind afterwards, to a second; None if no agent answers.
    """
    if not agent.connected(domain):
        return None
    # Some agents set the time, but then fail to write it to the emulated clock chip.
    with contextlib.suppress(libvirt.libvirtError):
        now = time.time()
        domain.setTime({"seconds": int(now), "nseconds": int(now % 1 * 1e9)}, 0)
    try:
        told = domain.getTime(0)
    except libvirt.libvirtError:
        return None
    return time.time() - (int(told["seconds"]) + int(told["nseconds"]) / 1e9)


def set_autostart(domain: Domain, *, on: bool) -> None:
    """Make a domain start with libvirt, or not."""
    with errors(f"changing the autostart of {domain.name()}"):
        domain.setAutostart(1 if on else 0)


def _ask_agent(domain: Domain) -> bool:
    """Tell the agent to restart the guest; return whether it got the command."""
    if not agent.connected(domain):
        return False
    order = {"execute": "guest-shutdown", "arguments": {"mode": "reboot"}}
    try:
        libvirt_qemu.qemuAgentCommand(domain, '{"execute": "guest-ping"}', agent.TIMEOUT, 0)
    except libvirt.libvirtError:
        return False
    with contextlib.suppress(libvirt.libvirtError):  # the agent does not answer this command
        libvirt_qemu.qemuAgentCommand(domain, json.dumps(order), _NO_ANSWER, 0)
    return True
