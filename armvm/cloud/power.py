"""Start, stop, restart and delete a cloud's servers."""

from __future__ import annotations

from collections.abc import Sequence

from armvm.base.errors import Conflict, DomainError, NotFound, NotReady
from armvm.base.poll import until
from armvm.cloud.connection import Connection, answers
from armvm.cloud.server import Server, again
from armvm.guest.ssh import known_hosts

#: Seconds for Nova to carry out a change. It waits for a guest's shutdown itself, 60 s by default
#: (shutdown_timeout in nova.conf), before it powers the guest off.
TIMEOUT, LOOK = 900.0, 1.0


def start(connection: Connection, server: Server) -> Server:
    """Start a server, and return it once Nova has. Raises Conflict if it is running."""
    if server.running:
        raise Conflict(
            f"{server.name} is already running",
            hint=f"wait until it is ready: armvm wait {server.name} --on {connection.cloud.name}",
        )
    with answers(connection.cloud, f"starting {server.name}"):
        connection.api.compute.start_server(server.id)
    return reach(connection, server, ("ACTIVE",), "start")


def stop(connection: Connection, server: Server, *, timeout: float | None = None) -> Server:
    """Shut a server down, and return it once it is off. Does nothing if it is off."""
    if server.status == "SHUTOFF":
        return server
    with answers(connection.cloud, f"stopping {server.name}"):
        connection.api.compute.stop_server(server.id)
    return reach(connection, server, ("SHUTOFF",), "stop", timeout)


def restart(
    connection: Connection, server: Server, *, force: bool, timeout: float | None = None
) -> Server:
    """Reboot a server, with *force* without a clean shutdown; return it once Nova has."""
    with answers(connection.cloud, f"restarting {server.name}"):
        connection.api.compute.reboot_server(server.id, "HARD" if force else "SOFT")
    return reach(connection, server, ("ACTIVE",), "restart", timeout)


def power_cycle(connection: Connection, server: Server, *, timeout: float | None = None) -> Server:
    """Stop a server and start it again, in a new QEMU process."""
    return start(connection, stop(connection, server, timeout=timeout))


def delete(connection: Connection, server: Server) -> None:
    """Delete a server, its disk and its port. Does nothing if it is gone."""
    with answers(connection.cloud, f"deleting {server.name}"):
        connection.api.compute.delete_server(server.id, ignore_missing=True)
    known_hosts.file_of(server.id).unlink(missing_ok=True)


def wait_gone(connection: Connection, server: Server) -> None:
    """Wait until a deleted server is gone. Raises DomainError if Nova cannot delete it."""

    def gone() -> bool:
        try:
            found = again(connection, server)
        except NotFound:
            return True
        if found.status in ("DELETED", "SOFT_DELETED"):
            return True
        if found.status == "ERROR" and found.fault != server.fault:
            raise DomainError(
                f"cloud {connection.cloud.name} cannot delete {server.name}",
                detail=found.fault,
                hint=f"openstack server delete {server.id}",
            )
        return False

    until(gone, timeout=TIMEOUT, interval=LOOK, late=lambda: _late(connection, server, "delete"))


def reach(
    connection: Connection,
    server: Server,
    wanted: Sequence[str],
    verb: str,
    timeout: float | None = None,
) -> Server:
    """Return a server once its status is one of *wanted*. Raises DomainError, NotReady."""

    def there() -> Server | None:
        found = again(connection, server)
        if found.status == "ERROR":
            raise DomainError(
                f"cloud {connection.cloud.name} cannot {verb} {server.name}", detail=found.fault
            )
        return found if found.status in wanted else None

    return until(
        there,
        timeout=TIMEOUT if timeout is None else timeout,
        interval=LOOK,
        late=lambda: _late(connection, server, verb),
    )


def _late(connection: Connection, server: Server, verb: str) -> NotReady:
    return NotReady(
        f"timed out: cloud {connection.cloud.name} did not {verb} {server.name}",
        hint=f"check its state: armvm show {server.name} --on {connection.cloud.name}",
    )
