"""Create, list, revert to and delete snapshots of a machine's disk.

A snapshot is a copy of the overlay in its own volume, recorded in the machine's metadata.
libvirt's own snapshots cannot be used (each seen with 9.0). It refuses internal snapshots of a
running machine ("internal snapshots of a VM with pflash based firmware are not supported"). It
cannot revert to external ones ("revert to external snapshot not supported yet"), and each moves
the machine to a disk with another name. So virsh does not list armvm's snapshots. A copy takes
the size of the overlay, and creates no chain of files.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Annotated

from armvm.base.errors import Conflict, NotFound, StorageError
from armvm.base.progress import Progress
from armvm.base.result import Doc, Size, UtcTime
from armvm.base.signals import shielded
from armvm.host.connection import Connection
from armvm.host.domain.disks import disks
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance, observe, set_record
from armvm.host.domain.metadata import Snapshot
from armvm.host.storage import pools, volumes
from armvm.host.storage.frozen_disk import standing_still
from armvm.host.storage.volume_copy import duplicate
from armvm.provision.machine.own_disk import assert_own_disk, left_alone
from armvm.provision.machine.undo import Undo
from armvm.provision.machine.unfinished import assert_whole
from armvm.settings.names import check_snapshot_name, next_name

#: The machine's state while its disk was copied.
OFF, FROZEN, RUNNING = "off", "frozen", "running"
_REVERT = ": only a stopped machine can be reverted"


@dataclass(frozen=True, kw_only=True)
class SnapshotDetails:
    """A snapshot of a machine's disk."""

    name: Annotated[str, Doc("Its name.")]
    created: Annotated[UtcTime, Doc("When it was taken, in UTC.")]
    state: Annotated[
        str,
        Doc(
            "off: the machine was off; frozen: it ran, with its file systems frozen; running: like "
            "after a power cut.",
            enum=[OFF, FROZEN, RUNNING],
        ),
    ]
    disk: Annotated[Size | None, Doc("Size of the disk in bytes; null: the volume is gone.")]
    size: Annotated[Size | None, Doc("Bytes on the host; null: the volume is gone.")]


def create(
    machine: Handle,
    name: str | None,
    progress: Progress,
) -> Snapshot:
    """Take a snapshot called *name*, by default snap-01, snap-02, …, and return it.

    On failure nothing is left behind. Raises Conflict if the name already exists, the machine is
    being created or a stopped one is started meanwhile; StorageError if the pool lacks space.
    """
    assert_whole(machine.instance)
    assert_own_disk(machine.instance)
    taken = {one.name for one in machine.record.snapshots}
    name = check_snapshot_name(name or next_name(taken, "snap"))
    if name in taken:
        raise Conflict(
            f"snapshot {name} of {machine.name} already exists",
            hint="choose another name, or delete it first: "
            f"armvm snapshot delete {machine.name} {name}",
        )
    pool = pools.need_pool(machine.connection, machine.record.pool, machine.name)
    disk = volumes.need_volume(pool, volumes.volume_names(machine.name)["overlay"])
    pools.check_space(pool, volumes.allocation(disk))
    target = volumes.snapshot_name(machine.name, name)
    leftover = volumes.find_volume(pool, target)
    if leftover is not None:  # left by a killed process: not in the metadata
        volumes.delete_volume(leftover)
    size = volumes.physical_size(disk)
    _tell_others(machine, "holds", progress)
    with Undo(progress) as undo:
        with progress.task(f"taking the snapshot {name}", total=size) as task:
            still: AbstractContextManager[bool | None] = (
                standing_still(pool, machine.domain)
                if machine.running
                else left_alone(machine, disk)
            )
            with still as frozen:
                volume = duplicate(machine.connection, pool, target, disk, task.update)
                undo.add(lambda: volumes.delete_volume(volume))
        made = Snapshot(
            name=name,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            state=OFF if frozen is None else FROZEN if frozen else RUNNING,
        )
        record = observe(machine.domain).record
        set_record(machine.domain, replace(record, snapshots=(*record.snapshots, made)))
    return made


def _tell_others(machine: Handle, does: str, progress: Progress) -> None:
    """Warn about disks that no snapshot holds."""
    found = disks(machine.domain)
    more = [one.name for one in found if not one.essential and not one.read_only]
    if more:
        progress.warn(f"a snapshot {does} the root disk only, not: {', '.join(more)}")


def describe(connection: Connection, instance: Instance) -> list[SnapshotDetails]:
    """Return a machine's snapshots, oldest first."""
    pool = pools.need_pool(connection, instance.record.pool, instance.name)
    pools.check_space(pool, 0)  # libvirt reads the sizes again
    found = []
    for one in instance.record.snapshots:
        volume = volumes.find_volume(pool, volumes.snapshot_name(instance.name, one.name))
        found.append(
            SnapshotDetails(
                name=one.name,
                created=one.created,
                state=one.state,
                disk=None if volume is None else volumes.capacity(volume),
                size=None if volume is None else volumes.allocation(volume),
            )
        )
    return found


def revert(machine: Handle, name: str, progress: Progress) -> None:
    """Restore a stopped machine's disk from a snapshot; later changes on the disk are lost.

    Signals cannot interrupt it. Raises NotFound, Conflict for a running machine, StorageError.
    """
    machine = machine.again()  # the user was asked since it was observed
    find(machine.instance, name)
    machine.require_off(_REVERT)
    assert_own_disk(machine.instance)
    pool = pools.need_pool(machine.connection, machine.record.pool, machine.name)
    kept = volumes.find_volume(pool, volumes.snapshot_name(machine.name, name))
    if kept is None:
        raise StorageError(
            f"the volume of snapshot {name} of {machine.name} not found in the pool",
            hint=f"remove its record: armvm snapshot delete {machine.name} {name}",
        )
    disk = volumes.volume_names(machine.name)["overlay"]
    _tell_others(machine, "restores", progress)
    old = volumes.find_volume(pool, disk)
    freed = 0 if old is None else volumes.allocation(old)
    pools.check_space(pool, max(volumes.allocation(kept) - freed, 0))
    with (
        progress.task(f"reverting to {name}", total=volumes.physical_size(kept)) as task,
        shielded(),
    ):
        machine.require_off(_REVERT)
        if old is not None:
            volumes.delete_volume(old)
        # A process killed here leaves no bootable disk; reverting again repairs that.
        volume = duplicate(machine.connection, pool, disk, kept, task.update)
        record = observe(machine.domain).record
        settings = {**record.settings, "disk": volumes.capacity(volume)}
        set_record(machine.domain, replace(record, settings=settings))


def delete(machine: Handle, name: str) -> None:
    """Remove a snapshot; the machine's disk stays as it is. Raises NotFound."""
    gone = find(machine.instance, name)
    pool = pools.need_pool(machine.connection, machine.record.pool, machine.name)
    volume = volumes.find_volume(pool, volumes.snapshot_name(machine.name, name))
    with shielded():
        if volume is not None:
            volumes.delete_volume(volume)
        record = observe(machine.domain).record
        left = tuple(one for one in record.snapshots if one != gone)
        set_record(machine.domain, replace(record, snapshots=left))


def find(instance: Instance, name: str) -> Snapshot:
    """Return a machine's snapshot by name. Raises NotFound, with the known names."""
    for one in instance.record.snapshots:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in instance.record.snapshots) or "none"
    raise NotFound(
        f"snapshot {check_snapshot_name(name)} of {instance.name} not found",
        hint=f"known: {known}; list virsh's own snapshots: virsh snapshot-list {instance.name}",
    )
