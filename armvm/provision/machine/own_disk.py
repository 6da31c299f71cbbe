"""Checks that a disk belongs to the machine in its name, before copying or renaming it."""

from __future__ import annotations

from pathlib import PurePosixPath

from armvm.base.errors import Conflict
from armvm.host.connection import Connection, Pool
from armvm.host.domain.instance import Instance, instances
from armvm.host.storage import volumes
from armvm.host.storage.pools import pool_path


def assert_own_disk(instance: Instance) -> None:
    """Raise Conflict if a machine's overlay comes from another tool or an interrupted snapshot."""
    disk = PurePosixPath(instance.overlay or "").name
    if disk == volumes.volume_names(instance.name)["overlay"]:
        return
    raise Conflict(
        f"{instance.name} uses the disk {disk} instead of its own: it has an external snapshot, "
        "another tool renamed it, or armvm was interrupted",
        hint="merge a snapshot while the machine is running: "
        f"virsh blockcommit {instance.name} vda --active --pivot; undo another tool's rename while "
        f"it is off: virsh domrename {instance.name} {disk.removesuffix('.qcow2')}",
    )


def assert_nobodys(connection: Connection, pool: Pool, name: str) -> None:
    """Raise Conflict if another machine uses one of the volumes named after *name*.

    Otherwise they are left over from a removed machine, and may be removed. Another machine uses
    them after ``virsh domrename``, which moves no files, or an interrupted `armvm rename`.
    """
    overlay = volumes.volume_names(name)["overlay"]
    if volumes.find_volume(pool, overlay) is None:
        return
    path = f"{pool_path(pool)}/{overlay}"
    for one in instances(connection):
        if one.name != name and one.overlay == path:
            raise Conflict(
                f"{overlay} is the disk of {one.name}, which was renamed from {name}",
                hint="choose another name, or undo the rename while that machine is off: "
                f"virsh domrename {one.name} {name}",
            )
