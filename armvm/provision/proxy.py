"""Bytes between standard input and output and a machine's ssh port, for ssh's ProxyCommand.

libvirt is asked where the machine is each time: its address and its forwarded port may change.
"""

from __future__ import annotations

import os
import select
import signal
import socket

from armvm import process
from armvm.errors import NotReady
from armvm.host.connection import Connection, Domain
from armvm.host.instance import Instance
from armvm.provision.known_hosts import write_known_host
from armvm.provision.ssh import no_answer, reach
from armvm.signals import ENDING

#: Seconds until the connection must stand.
PATIENCE = 30.0
_BLOCK = 64 << 10


def proxy(
    connection: Connection, domain: Domain, instance: Instance, *, source: int, sink: int
) -> int:
    """Connect two descriptors to a machine's ssh port until either side ends; return an exit code.

    A libvirt that is reached by ssh has its machines on networks of its own: that ssh is asked
    to connect there, and takes this process's place: nothing of libvirt's stays open behind it.
    Raises what `reach` raises, NotReady when nobody answers at the port.
    """
    where = reach(domain, instance)
    write_known_host(instance)  # ssh reads it after this has begun: it may have been cleaned away
    if where.jump is not None:
        command = where.jump.through(where.host, where.port)
        connection.close()
        process.replace(command)
    try:
        server = socket.create_connection((where.host, where.port), timeout=PATIENCE)
    except OSError as error:
        raise NotReady(
            f"{instance.name} does not answer at {where.host}, port {where.port}",
            detail=str(error),
            hint=no_answer(domain, instance),
        ) from error
    with server:
        server.settimeout(None)
        _join(server, source, sink)
    return 0


def _join(server: socket.socket, source: int, sink: int) -> None:
    """Carry bytes both ways. The end of input is passed on; the server's end is the end."""
    for number in ENDING:  # ssh ends it by SIGHUP: there is nothing to undo, nor to say
        signal.signal(number, signal.SIG_DFL)
    reading: list[int | socket.socket] = [server, source]
    while True:
        ready, _, _ = select.select(reading, [], [])
        if source in ready:
            data = os.read(source, _BLOCK)
            if data:
                server.sendall(data)
            else:
                reading.remove(source)
                server.shutdown(socket.SHUT_WR)
        if server in ready:
            data = server.recv(_BLOCK)
            if not data:
                return
            while data:
                data = data[os.write(sink, data) :]
