"""The way to a host, for the command line: a connection, its facts, and the names on it.

What makes machines is imported late: `armvm ssh` and completion come by here too.
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
    """Open a connection; None means the one that is used without ``--connect``."""
    return connecting.connect(uri)


def where(uri: str | None, pool: str | None, verify: Verify | None = None) -> Where:
    """Open a connection and look at its host, for commands that make machines."""
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
    """Return the pool asked for, or armvm's own. Raises ConfigError for what can be no name."""
    from armvm.host.storage import pools

    return check_object_name("pool", asked) if asked else pools.DEFAULT_POOL


def machine_names(connection: Connection) -> list[str]:
    """Return the names of armvm's machines."""
    return [one.name for one in instance.instances(connection)]


def network_names(connection: Connection) -> list[str]:
    """Return the names of all networks, running or not."""
    from armvm.host.network import networks

    return networks.network_names(connection)


def free_name(connection: Connection) -> str:
    """Return the first of ``arm64-01``, ``arm64-02``, … that no domain has."""
    return next_name(instance.domain_names(connection))


def snapshot_names(connection: Connection) -> list[str]:
    """Return the names of all machines' snapshots."""
    machines = instance.instances(connection)
    return sorted({taken.name for one in machines for taken in one.record.snapshots})
