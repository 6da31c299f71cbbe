"""Port forwards of a machine with user networking, except ssh: set and read through QEMU.

Source: QEMU's monitor, ``hostfwd_add``, ``hostfwd_remove`` and ``info usernet``. QEMU forgets
them when it ends; the domain's metadata keeps them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable

from armvm.base.errors import ArmvmError, Conflict
from armvm.host.connection import Domain, errors
from armvm.host.network.ssh_forward import monitor, netdev_of
from armvm.settings.ports import PortForward, Protocol

_RULE = re.compile(r"\s*(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(\*|[0-9.]+)\s+(\d+)\s+\S+\s+(\d+)\s")


def rules_in(usernet: str, netdev: str) -> set[PortForward]:
    """Return the forwards of *netdev* in the text of ``info usernet``."""
    ours, found = False, set()
    for line in usernet.splitlines():
        if line.rstrip().endswith(":"):
            ours = netdev in re.split(r"[\s():]+", line)
        rule = _RULE.match(line)
        if rule and ours:
            protocol, listen, host, guest = rule.groups()
            with contextlib.suppress(ValueError):
                found.add(
                    PortForward(
                        host=int(host),
                        guest=int(guest),
                        listen="0.0.0.0" if listen == "*" else listen,  # noqa: S104
                        protocol=Protocol(protocol.lower()),
                    )
                )
    return found


def rules(domain: Domain) -> set[PortForward]:
    """Return a running machine's forwards, including ssh's. Raises DomainError."""
    with errors(f"reading the forwards of {domain.name()}"):
        return rules_in(monitor(domain, "info usernet"), netdev_of(domain))


def add(domain: Domain, rule: PortForward) -> None:
    """Make the host listen for a running machine. Raises Conflict if it cannot."""
    place = f"{rule.protocol.value}:{rule.listen}:{rule.host}"
    with errors(f"forwarding {rule} to {domain.name()}"):
        answer = monitor(domain, f"hostfwd_add {netdev_of(domain)} {place}-:{rule.guest}").strip()
    if answer:
        raise Conflict(
            f"the host cannot listen on {rule.listen}, port {rule.host}",
            detail=answer,
            hint="another program uses the port, or the port is below 1024 and QEMU is not root",
        )


def remove(domain: Domain, rule: PortForward) -> None:
    """Stop listening for a running machine; does nothing if the forward does not exist."""
    place = f"{rule.protocol.value}:{rule.listen}:{rule.host}"
    with errors(f"removing the forward {rule} of {domain.name()}"):
        monitor(domain, f"hostfwd_remove {netdev_of(domain)} {place}")


def restore(domain: Domain, wanted: Iterable[PortForward]) -> list[PortForward]:
    """Add those of the *wanted* forwards that are missing; return those that failed."""
    there, failed = rules(domain), []
    for rule in wanted:
        if rule not in there:
            try:
                add(domain, rule)
            except ArmvmError:
                failed.append(rule)
    return failed
