"""Whose a disk is: the machine's whose name it bears, which is needed to copy or rename it."""

from __future__ import annotations

from pathlib import PurePosixPath

from armvm.base.errors import Conflict
from armvm.host.connection import Connection, Pool
from armvm.host.domain.instance import Instance, instances
from armvm.host.storage import volumes
from armvm.host.storage.pools import pool_path


def assert_own_disk(instance: Instance) -> None:
    """Raise Conflict for a machine on an overlay of another tool's, or of a killed snapshot's."""
    disk = PurePosixPath(instance.overlay or "").name
    if disk == volumes.volume_names(instance.name)["overlay"]:
        return
    raise Conflict(
        f"{instance.name} writes to {disk}: an external snapshot, the disk of a name that it had "
        "before, or what a killed armvm left",
        hint="merge a snapshot into its own disk, while the machine runs: "
        f"virsh blockcommit {instance.name} vda --active --pivot; after another tool's rename, "
        f"while it is off: virsh domrename {instance.name} {disk.removesuffix('.qcow2')}",
    )


def assert_nobodys(connection: Connection, pool: Pool, name: str) -> None:
    """Raise Conflict when the volumes called *name* are not free to be removed.

    They are what is left of a dead machine, unless another one's disk is among them: after
    ``virsh domrename``, which moves no files, or a rename of armvm's that was killed.
    """
    overlay = volumes.volume_names(name)["overlay"]
    if volumes.find_volume(pool, overlay) is None:
        return
    path = f"{pool_path(pool)}/{overlay}"
    for one in instances(connection):
        if one.name != name and one.overlay == path:
            raise Conflict(
                f"{overlay} is the disk of {one.name}, which was called {name} once",
                hint=f"choose another name; or give that one its own back, while it is off: "
                f"virsh domrename {one.name} {name}",
            )
