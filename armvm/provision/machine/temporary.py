"""Remove temporary machines, including those that killed processes left behind."""

from __future__ import annotations

from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.host.connection import Connection
from armvm.host.domain.handle import find_machine
from armvm.host.domain.instance import instances
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.unfinished import is_left_behind


def remove(connection: Connection, name: str, *, uuid: str) -> None:
    """Remove a temporary machine; do nothing if it does not exist.

    A machine with the same name but another *uuid* is kept.
    """
    try:
        machine = find_machine(connection, name)
        if machine.instance.uuid == uuid:
            delete_domain(machine)
    except NotFound:
        return


def sweep(connection: Connection, progress: Progress, prefix: str) -> None:
    """Remove machines of killed processes whose names begin with *prefix*."""
    for instance in instances(connection):
        if instance.name.startswith(prefix) and is_left_behind(instance):
            progress.say(f"removing {instance.name}, which an interrupted armvm left behind")
            remove(connection, instance.name, uuid=instance.uuid)
