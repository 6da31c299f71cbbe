"""Wait for the first ssh command, in the same way for machines of all tools."""

from __future__ import annotations

import contextlib
import socket
import time

from armvm.base.errors import CommandFailed, NotReady
from armvm.base.process import run
from benchmarks.world import URI, USER, World

#: Seconds between two checks of the lease and the port: short compared with a boot, and cheap.
INTERVAL = 0.25


def wait_for_ssh(world: World, name: str, *, timeout: float = 600.0) -> None:
    """Wait until an ssh command succeeds in a machine on a libvirt network.

    Waits for a DHCP lease, then for ssh's banner, then for ``true`` as the guest's user, whose
    key may be installed after ssh answers. Raises NotReady after *timeout* seconds.
    """
    end = time.monotonic() + timeout
    address = None
    while time.monotonic() < end:
        address = address or _address(name)
        if address is not None and _greets(address) and _true(world, address):
            return
        time.sleep(INTERVAL)
    raise NotReady(f"{name}: no ssh after {timeout:g} s (address {address})")


def _address(name: str) -> str | None:
    """Return a machine's IPv4 address from libvirt's leases."""
    words = ["virsh", "-q", "-c", URI, "domifaddr", name, "--source", "lease"]
    for line in run(words, timeout=60, check=False).text.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] == "ipv4":
            return fields[3].partition("/")[0]
    return None


def _greets(address: str) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection((address, 22), timeout=2) as connection,
    ):
        connection.settimeout(5)
        return connection.recv(4) == b"SSH-"
    return False


def _true(world: World, address: str) -> bool:
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    options += ["ConnectTimeout=10", "LogLevel=ERROR", "IdentitiesOnly=yes"]
    words = ["ssh", "-F", "none", "-i", str(world.key)]
    for option in options:
        words += ["-o", option]
    try:
        return run([*words, f"{USER}@{address}", "true"], timeout=60, check=False).returncode == 0
    except CommandFailed:
        return False
