"""Connect standard input and output to a machine's ssh port, for ssh's ProxyCommand.

armvm looks up the machine in libvirt for each connection, because its address and its forwarded
port may change.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from armvm.base import process
from armvm.base.errors import DomainError, NotReady
from armvm.base.poll import until
from armvm.base.signals import ENDING
from armvm.host.domain.handle import Handle
from armvm.provision.access.ssh import Endpoint, answers, no_answer, reach
from armvm.provision.machine.known_hosts import write_known_host

#: Seconds for the connection to be established, and between two checks for an ssh server.
PATIENCE, INTERVAL = 30.0, 1.0
#: Seconds for the first data from the ssh server; ssh itself waits a little longer (ConnectTimeout
#: in `armvm.guest.ssh.options`).
SILENCE = 45.0
_BLOCK = 64 << 10


def proxy(
    machine: Handle,
    *,
    source: int,
    sink: int,
    wait: float | None = None,
) -> int:
    """Connect two descriptors to a machine's ssh port until either side ends; return an exit code.

    If libvirt is reached by ssh, its machines are on networks of the remote host. ssh to that host
    then replaces this process, after the connection to libvirt is closed. With *wait*, armvm first
    waits for an ssh server, for at most this many seconds.

    Raises the errors of `reach`; NotReady if the port does not answer or the guest closes the
    connection before its ssh server sends data; DomainError if the connection is lost later.
    """
    where = _when_it_answers(machine, wait) if wait else reach(machine)
    write_known_host(
        machine.instance
    )  # ssh reads the file after this point, and a cleanup may have removed it
    if where.jump is not None:
        command = where.jump.through(where.host, where.port)
        machine.connection.close()
        process.replace(command)
    try:
        server = socket.create_connection((where.host, where.port), timeout=PATIENCE)
    except OSError as error:
        raise NotReady(
            f"{machine.name} does not answer at {where.host}, port {where.port}",
            detail=str(error),
            hint=no_answer(machine),
        ) from error
    with server:
        server.settimeout(None)
        heard, lost = _join(server, source, sink)
    if not heard:
        raise NotReady(
            f"the ssh server of {machine.name} does not answer yet: the machine is still booting",
            detail=lost,
            hint=f"{no_answer(machine)}; or use armvm proxy --wait",
        )
    if lost is not None:
        raise DomainError(f"the connection to {machine.name} was lost", detail=lost)
    return 0


def _when_it_answers(machine: Handle, seconds: float) -> Endpoint:
    """Return a machine's ssh endpoint once a server answers there, or after *seconds*."""

    def speaking() -> Endpoint | None:
        try:
            where = reach(machine)
        except NotReady:
            return None
        return where if answers(where) else None

    return until(speaking, timeout=seconds, interval=INTERVAL) or reach(machine)


def _join(server: socket.socket, source: int, sink: int) -> tuple[bool, str | None]:
    """Copy bytes both ways until the server closes the connection; pass the end of input on.

    Returns whether the server sent data, and why the connection was lost, or None. QEMU's user
    networking accepts a connection before the guest does, and resets it if the guest does not.
    """
    heard, begun = False, time.monotonic()
    for number in ENDING:  # ssh sends SIGHUP at its end; there is nothing to undo or report
        signal.signal(number, signal.SIG_DFL)
    reading: list[int | socket.socket] = [server, source]
    while True:
        left = None if heard else max(0.0, begun + SILENCE - time.monotonic())
        ready, _, _ = select.select(reading, [], [], left)
        if not ready:
            return heard, f"timed out after {SILENCE:g} s: no data"
        if source in ready:
            data = os.read(source, _BLOCK)
            try:
                if data:
                    server.sendall(data)
                else:
                    reading.remove(source)
                    server.shutdown(socket.SHUT_WR)
            except OSError as error:
                return heard, str(error)
        if server in ready:
            try:
                data = server.recv(_BLOCK)
            except OSError as error:
                return heard, str(error)
            if not data:
                return heard, None
            heard = True
            while data:
                data = data[os.write(sink, data) :]
