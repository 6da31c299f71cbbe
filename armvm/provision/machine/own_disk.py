"""A machine's own volumes: checks before copying, renaming or removing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath

from armvm.base.errors import Conflict
from armvm.host.connection import Connection, Pool, Volume
from armvm.host.domain.disks import users_of
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance
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


@contextmanager
def left_alone(machine: Handle, volume: Volume) -> Iterator[None]:
    """Copy a volume of a stopped machine in the block.

    Raises Conflict if the machine runs before or after the block, or wrote to the volume during it.
    """
    machine.require_off(": its disk is being written to")
    before = volumes.modified(volume)
    yield
    if machine.again().running:
        raise Conflict(
            f"{machine.name} was started while armvm copied its disk",
            hint="stop it, and try again",
        )
    if volumes.modified(volume) != before:
        raise Conflict(
            f"the disk of {machine.name} changed while armvm copied it",
            hint="leave the machine off, and try again",
        )


def clear_volumes(connection: Connection, pool: Pool, name: str) -> list[str]:
    """Remove the volumes that a removed machine called *name* left; return their names.

    Raises Conflict, and removes none, if another machine uses one of them. That happens after
    ``virsh domrename``, which moves no files, after an interrupted `armvm rename`, or if a disk was
    attached to it.
    """
    found = volumes.machine_volumes(pool, name)
    paths = _paths(pool, name, found)
    used = users_of(connection, paths.values(), besides=[name])
    overlay = volumes.volume_names(name)["overlay"]
    for path, user in sorted(used.items(), key=lambda one: not one[0].endswith(f"/{overlay}")):
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
    return _removed(name, found)


def own_volumes(pool: Pool, name: str, *, called: str | None = None) -> dict[str, Volume]:
    """Return a machine's volumes by name suffix, without those that another domain uses.

    *called* is the name of the machine's domain, if it has been renamed.

    An added disk that was left over may have been attached to another machine. The other volumes
    are the machine's while it exists, and `clear_volumes` checks them when it does not: to ask
    all machines would delay every removal.
    """
    found = volumes.machine_volumes(pool, name)
    paths = _paths(pool, name, (one for one in found if one.startswith(volumes.ADDED)))
    used = users_of(pool.connect(), paths.values(), besides=[called or name])
    return {suffix: one for suffix, one in found.items() if paths.get(suffix) not in used}


def _paths(pool: Pool, name: str, suffixes: Iterable[str]) -> dict[str, str]:
    directory = pool_path(pool)
    return {suffix: f"{directory}/{name}{suffix}" for suffix in suffixes}


def delete_machine_volumes(pool: Pool, name: str) -> list[str]:
    """Remove all volumes of a machine, snapshots and rotated logs too; return their names.

    Keeps those that another domain uses.
    """
    return _removed(name, own_volumes(pool, name))


def _removed(name: str, found: Mapping[str, Volume]) -> list[str]:
    for volume in found.values():
        volumes.delete_volume(volume)
    return [name + suffix for suffix in found]
