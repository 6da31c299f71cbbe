"""Connections to a host, its facts, and the names of its objects, for the command line.

Code that creates machines is imported late, to keep `armvm ssh` and completion fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvm.host import connection as connecting
from armvm.host.connection import Connection
from armvm.host.domain import instance
from armvm.settings.names import check_object_name, next_name

if TYPE_CHECKING:
    from armvm.provision.machine.create import Where
    from armvm.settings.verify import Verify


def connect(uri: str | None) -> Connection:
    """Open a connection; None means the default, as without ``--connect``."""
    return connecting.connect(uri)


def where(uri: str | None, pool: str | None, verify: Verify | None = None) -> Where:
    """Open a connection and gather its host's facts, for commands that create machines."""
    from armvm.host import facts
    from armvm.provision.machine.create import Where

    connection = connect(uri)
    return Where(
        connection=connection,
        facts=facts.observe(connection),
        pool=pool_name(pool),
        verify=verify,
    )


def pool_name(asked: str | None) -> str:
    """Return the requested pool, or armvm's own. Raises ConfigError for an invalid name."""
    from armvm.host.storage import pools

    return check_object_name("pool", asked) if asked else pools.DEFAULT_POOL


def machine_names(connection: Connection) -> list[str]:
    """Return the names of armvm's machines."""
    return [one.name for one in instance.machines(connection)]


def network_names(connection: Connection) -> list[str]:
    """Return the names of all networks, running or not."""
    from armvm.host.network import networks

    return networks.network_names(connection)


def free_name(connection: Connection) -> str:
    """Return the first unused name of ``arm64-01``, ``arm64-02``, …."""
    return next_name(instance.domain_names(connection))


def disk_names(connection: Connection, machine: str | None) -> list[str]:
    """Return the names of a machine's disks that can be removed or grown."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.disk import names

    return names(pick(connection, machine))


def snapshot_names(connection: Connection) -> list[str]:
    """Return the names of all machines' snapshots."""
    machines = instance.instances(connection)
    return sorted({taken.name for one in machines for taken in one.record.snapshots})
