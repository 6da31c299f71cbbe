"""Checks that a disk belongs to the machine in its name, before copying or renaming it."""

from __future__ import annotations

from pathlib import PurePosixPath

from armvm.base.errors import Conflict
from armvm.host.connection import Connection, Pool
from armvm.host.domain.disks import users_of
from armvm.host.domain.instance import Instance
from armvm.host.storage import volumes


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
    them after ``virsh domrename``, which moves no files, after an interrupted `armvm rename`, or
    if a disk was attached to it.
    """
    paths = [volume.path() for volume in volumes.machine_volumes(pool, name).values()]
    used = users_of(connection, paths, besides=name)
    overlay = volumes.volume_names(name)["overlay"]
    for path, user in sorted(used.items(), key=lambda one: PurePosixPath(one[0]).name != overlay):
        file = PurePosixPath(path).name
        if file == overlay:
            raise Conflict(
                f"{overlay} is the disk of {user}, which was renamed from {name}",
                hint="choose another name, or undo the rename while that machine is off: "
                f"virsh domrename {user} {name}",
            )
        raise Conflict(
            f"{file} has the name of a volume of {name}, but {user} uses it",
            hint="choose another name",
        )
