"""Log in to machines by plain ssh: wait for the first command, and connections of the peers."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import CommandFailed, NotReady
from armvm.base.process import into_background, run
from benchmarks.world import TIMEOUT, URI, USER, World

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
    try:
        words = ["ssh", *options_for(world.key), f"{USER}@{address}", "true"]
        return run(words, timeout=60, check=False).returncode == 0
    except CommandFailed:
        return False


def options_for(key: Path) -> list[str]:
    """Return ssh's and scp's options to log in with *key*; the user's settings are ignored."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    options += ["ConnectTimeout=10", "LogLevel=ERROR", "IdentitiesOnly=yes"]
    words = ["-F", "none", "-i", str(key)]
    for option in options:
        words += ["-o", option]
    return words


@dataclass(frozen=True, kw_only=True)
class Login:
    """How ssh, scp and rsync reach a machine: their options, and ``user@host``."""

    options: tuple[str, ...]
    target: str

    def ssh(self, command: str) -> list[str]:
        """Return the command line that runs a shell command in the machine."""
        return ["ssh", *self.options, self.target, command]


def login(world: World, name: str) -> Login:
    """Add this run's key to one of armvm's machines, and return a way to log in to it."""
    key = world.key.with_suffix(".pub").read_bytes()
    run([world.armvm, "ssh", name, "--", "cat >>.ssh/authorized_keys"], input=key, timeout=TIMEOUT)
    where = json.loads(world.run(world.armvm, "show", name, "--json").text)["ssh"]
    options = (*options_for(world.key), "-o", f"Port={where['port']}")
    return Login(options=options, target=f"{where['user']}@{where['host']}")


@contextmanager
def shared(own: Login, control: Path) -> Iterator[Login]:
    """Open a connection for several commands, with its socket at *control* (ControlMaster).

    Yields a login that uses it, and closes it on exit.
    """
    share = (*own.options, "-o", f"ControlPath={control}")
    master = ("-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-f", "-N")
    into_background(["ssh", *share, *master, own.target], timeout=60)
    try:
        yield Login(options=share, target=own.target)
    finally:
        run(["ssh", *share, "-O", "exit", own.target], timeout=60, check=False)
