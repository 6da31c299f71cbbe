"""ssh access with user networking: a port on the host's loopback that leads to the guest's ssh.

Before passt, libvirt lacks an element for it, so armvm adds a rule through QEMU's monitor after
every start. The rule lasts as long as the QEMU process; the domain's metadata keeps the port.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

import libvirt
import libvirt_qemu

from armvm.base.errors import DomainError
from armvm.host.connection import Domain, errors
from armvm.host.xml import parse

#: Below Linux's range for outgoing connections (32768–60999), above the ports of most services.
PORTS = range(20000, 32000)
_TRIES = 20


def choose_port(taken: Collection[int]) -> int:
    """Return a port that is not assigned to another machine."""
    return random.choice(sorted(set(PORTS) - set(taken)))  # noqa: S311


def ensure_forward(domain: Domain, wanted: int, taken: Collection[int]) -> int:
    """Forward 127.0.0.1:PORT to the guest's port 22, and return the port.

    It is *wanted*, unless another program uses that port now. Keeps an existing rule. Raises
    DomainError if QEMU rejects the rule.
    """
    with errors("setting up the ssh forward"):
        netdev = netdev_of(domain)
        existing = _existing(domain, netdev)
        if existing is not None:
            return existing
        port, answer = wanted, ""
        for _ in range(_TRIES):
            answer = monitor(domain, f"hostfwd_add {netdev} tcp:127.0.0.1:{port}-:22").strip()
            if not answer:
                return port
            port = choose_port([*taken, port])
    raise DomainError(f"QEMU did not set up the ssh forward: {answer}")


def netdev_of(domain: Domain) -> str:
    """Return QEMU's name for the user-mode interface: "host" and libvirt's alias for it."""
    alias = parse(domain.XMLDesc(0)).find("devices/interface[@type='user']/alias")
    if alias is None:
        raise DomainError(
            f"{domain.name()} no longer uses user networking",
            hint=f"restore its <interface type='user'>: virsh edit {domain.name()}",
        )
    return f"host{alias.get('name')}"


def _existing(domain: Domain, netdev: str) -> int | None:
    """Return the port of an existing rule, from QEMU's ``info usernet``.

    Its lines: ``TCP[HOST_FORWARD]  12  127.0.0.1  20022  10.0.2.15  22  0  0``, below a line
    that names the netdev: ``Hub -1 (hostnet0):`` or ``hostnet0:``.
    """
    return forwarded_port(monitor(domain, "info usernet"), netdev)


def forwarded_port(usernet: str, netdev: str) -> int | None:
    """Return the host port that *netdev* forwards to port 22, in the text of ``info usernet``."""
    ours = False
    for line in usernet.splitlines():
        if line.rstrip().endswith(":"):
            ours = netdev in re.split(r"[\s():]+", line)
        rule = re.match(r"\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\s", line)
        if rule and ours:
            return int(rule[1])
    return None


def monitor(domain: Domain, command: str) -> str:
    """Return the answer of QEMU's monitor to a command. Raises DomainError, libvirtError."""
    flags = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    try:
        return str(libvirt_qemu.qemuMonitorCommand(domain, command, flags))
    except libvirt.libvirtError as error:
        if not domain.isActive():
            raise DomainError(f"{domain.name()} is not running") from error
        raise
