"""Bytes between standard input and output and a machine's ssh port, for ssh's ProxyCommand.

libvirt is asked where the machine is each time: its address and its forwarded port may change.
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

#: Seconds until the connection must stand, and between two looks for an ssh server.
PATIENCE, INTERVAL = 30.0, 1.0
#: Seconds in which an ssh server must have said its first word; ssh itself waits a little longer
#: (ConnectTimeout in `armvm.provision.access.ssh_options`).
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

    A libvirt that is reached by ssh has its machines on networks of its own: that ssh is asked
    to connect there, and takes this process's place: nothing of libvirt's stays open behind it.
    With *wait*, an ssh server is waited for first, for so many seconds at most.

    Raises what `reach` raises, NotReady when nobody answers at the port, or the guest ends the
    connection before its ssh server says a word; DomainError when it is lost later.
    """
    where = _when_it_answers(machine, wait) if wait else reach(machine)
    write_known_host(
        machine.instance
    )  # ssh reads it after this has begun: it may have been cleaned away
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
    """Return where a machine's ssh is once a server speaks there, or after *seconds* anyway."""

    def speaking() -> Endpoint | None:
        try:
            where = reach(machine)
        except NotReady:
            return None
        return where if answers(where) else None

    return until(speaking, timeout=seconds, interval=INTERVAL) or reach(machine)


def _join(server: socket.socket, source: int, sink: int) -> tuple[bool, str | None]:
    """Carry bytes both ways. The end of input is passed on; the server's end is the end.

    Returns whether the server said anything, and why the connection was lost, if it was: QEMU's
    user networking accepts one before the guest does, and resets it then.
    """
    heard, begun = False, time.monotonic()
    for number in ENDING:  # ssh ends it by SIGHUP: there is nothing to undo, nor to say
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
