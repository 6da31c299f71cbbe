"""List, add, grow and remove the disks of a machine."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from armvm.base.errors import ArmvmError, ConfigError, Conflict, NotFound, StorageError
from armvm.base.progress import Progress
from armvm.base.result import Doc, MachineName, Size
from armvm.base.signals import shielded
from armvm.host.agent import agent
from armvm.host.connection import Connection, is_local, uri_of
from armvm.host.domain import disks as host_disks
from armvm.host.domain.disks import ROOT, Disk
from armvm.host.domain.handle import Handle, find_machine
from armvm.host.domain.resize import grow_volume
from armvm.host.storage import pools, volumes
from armvm.host.storage.base_image import backing_path
from armvm.host.storage.volume_copy import link_or_duplicate
from armvm.provision.machine.disks import existing, make_one
from armvm.provision.machine.unfinished import assert_whole
from armvm.settings.disks import ExtraDisk, named
from armvm.settings.names import shown
from armvm.settings.size import MAX_DISK, size_label

#: Seconds for a guest under KVM to say what uses a disk; ten times that if emulated.
_ASK_TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class DiskDetails:
    """A disk of a machine."""

    machine: Annotated[MachineName, Doc("The machine.")]
    name: Annotated[
        str,
        Doc("Its name; the guest has a further disk as /dev/disk/by-id/virtio-NAME."),
    ]
    target: Annotated[str, Doc("libvirt's name of the device, such as vdc.")]
    size: Annotated[Size | None, Doc("Its size in bytes; null: unknown.")]
    allocated: Annotated[Size | None, Doc("Bytes on the host; null: unknown.")]
    file: Annotated[str | None, Doc("Its file on the libvirt host; null: an empty drive.")]
    format: Annotated[str, Doc("The file's format.", enum=["qcow2", "raw", "other"])]
    made: Annotated[
        bool, Doc("Whether armvm made it, and deletes it with the machine; else it was attached.")
    ]
    backing: Annotated[str | None, Doc("Its backing file; null: none, or unknown.")]
    attached: Annotated[
        bool, Doc("Whether the running machine has it; of a stopped machine: the definition.")
    ]


def listed(machine: Handle) -> list[DiskDetails]:
    """Return a machine's disks, in libvirt's order."""
    return [_describe(machine, one, attached) for one, attached in _disks(machine)]


def _disks(machine: Handle) -> list[tuple[Disk, bool]]:
    """Return the definition's disks and then those that only QEMU has still.

    Each with whether the running machine has it.
    """
    kept = host_disks.disks(machine.domain)
    if not machine.running:
        return [(one, True) for one in kept]
    live = host_disks.disks(machine.domain, live=True)
    there = {(one.target, one.file) for one in live}
    known = {(one.target, one.file) for one in kept}
    return [(one, (one.target, one.file) in there) for one in kept] + [
        (one, True) for one in live if (one.target, one.file) not in known
    ]


def _describe(machine: Handle, disk: Disk, attached: bool) -> DiskDetails:
    sizes = host_disks.sizes(machine.domain, disk)
    volume = volumes.volume_at(machine.connection, disk.file) if disk.file else None
    return DiskDetails(
        machine=machine.name,
        name=disk.name,
        target=disk.target,
        size=sizes[0] if sizes else None,
        allocated=sizes[1] if sizes else None,
        file=disk.file,
        format=disk.format if disk.format in ("qcow2", "raw") else "other",
        made=_is_made(machine, disk),
        backing=backing_path(volume) if volume is not None else None,
        attached=attached,
    )


def _is_made(machine: Handle, disk: Disk) -> bool:
    """Return whether a disk's file is deleted with the machine."""
    file = PurePosixPath(disk.file or "")
    if not volumes.is_volume_of(machine.name, file.name):
        return False
    pool = pools.find_pool(machine.connection, machine.record.pool)
    return pool is not None and str(file.parent) == pools.pool_path(pool)


def kept_files(connection: Connection, name: str) -> list[str]:
    """Return the files of the disks that were attached: deleting the machine keeps them."""
    try:
        machine = find_machine(connection, name)
    except NotFound:
        return []
    return [
        one.file
        for one, _attached in _disks(machine)
        if one.file is not None and not one.essential and not _is_made(machine, one)
    ]


def names(machine: Handle) -> list[str]:
    """Return the names of the disks that can be removed or grown."""
    return [one.name for one, _ in _disks(machine) if not one.essential]


def find(machine: Handle, name: str) -> Disk:
    """Return a machine's disk by its name or target. Raises NotFound, with the known names."""
    found = [one for one, _attached in _disks(machine)]
    for one in found:
        if name in (one.name, one.target):
            return one
    known = ", ".join(one.name for one in found)
    raise NotFound(
        f"disk {shown(name)} of {machine.name} not found",
        hint=f"known: {known}; show them: armvm disk list {machine.name}",
    )


def add(machine: Handle, disk: ExtraDisk) -> DiskDetails:
    """Add a new or an existing disk to a machine, at once if it runs; return its details.

    On failure nothing is left behind. Raises Conflict for a name or a file that is in use,
    MissingCapability if a running machine has no free port, and what checking a file raises.
    """
    assert_whole(machine.instance)
    taken = [one.name for one, _attached in _disks(machine)]
    [disk] = named([disk], taken)
    pool = pools.need_pool(machine.connection, machine.record.pool, machine.name)
    if disk.file is not None:
        spec, volume = existing(machine.connection, disk), None
        host_disks.attach(machine.domain, spec, running=machine.running)
    else:
        with shielded():
            spec = make_one(pool, machine.name, disk)
            volume = volumes.need_volume(pool, PurePosixPath(spec.file).name)
            try:
                host_disks.attach(machine.domain, spec, running=machine.running)
            except BaseException:
                volumes.delete_volume(volume)
                raise
    return next(one for one in listed(machine) if one.name == disk.name)


def grow(machine: Handle, name: str, size: int) -> DiskDetails:
    """Grow a further disk to *size* bytes, at once if the machine runs; return its details.

    Raises ConfigError for a smaller size, StorageError.
    """
    disk = find(machine, name)
    if disk.name == ROOT:
        raise ConfigError(
            "disk grow does not change the root disk",
            hint=f"use: armvm resize {machine.name} --disk {size_label(size)}",
        )
    if disk.read_only or disk.file is None:
        raise ConfigError(f"disk {disk.name} of {machine.name} is read-only: it cannot grow")
    sizes = host_disks.sizes(machine.domain, disk)
    if sizes is None:
        raise StorageError(f"the size of {disk.file} is unknown")
    if size < sizes[0]:
        raise ConfigError(
            f"cannot shrink the disk {disk.name} of {machine.name} from {size_label(sizes[0])} to "
            f"{size_label(size)}: partitions and data beyond that size would be lost",
            hint="add a smaller disk, and copy your files there in the guest",
        )
    if size > MAX_DISK:
        raise ConfigError(
            f"a disk of {size_label(size)} is out of range "
            f"({size_label(sizes[0])} to {size_label(MAX_DISK)})"
        )
    if size > sizes[0]:
        _grow(machine, disk, size)
    return next(one for one in listed(machine) if one.target == disk.target)


def _grow(machine: Handle, disk: Disk, size: int) -> None:
    if machine.running:
        host_disks.grow(machine.domain, disk, size)
        return
    volume = volumes.volume_at(machine.connection, disk.file or "")
    if volume is None:
        raise StorageError(
            f"{disk.file} is not in a storage pool, so libvirt can only resize it while the "
            "machine runs",
            hint=f"start {machine.name}, then grow it",
        )
    grow_volume(volume, size)


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A disk that was removed. ``kept`` is its file, None if that was deleted.

    If ``later`` is true, the guest did not release it: it stays until the machine is stopped.
    """

    name: str
    kept: str | None
    later: bool


def check_removable(machine: Handle, name: str) -> tuple[Disk, bool]:
    """Return a disk that may be removed, and whether its file would be deleted.

    Raises Conflict for the root disk, the seed, or a disk that the guest has mounted.
    """
    assert_whole(machine.instance)
    disk = find(machine, name)
    if disk.essential:
        raise Conflict(
            f"the {'root disk' if disk.name == ROOT else 'seed'} of {machine.name} cannot be "
            "removed: it does not boot without",
            hint=f"to remove the machine: armvm delete {machine.name}",
        )
    if machine.running and (place := _mounted(machine, disk)):
        raise Conflict(
            f"disk {disk.name} is in use in {machine.name}: mounted at {shown(place)}",
            hint=f"unmount it first: armvm exec {machine.name} -- sudo umount {shlex.quote(place)}",
        )
    return disk, _is_made(machine, disk)


def remove(machine: Handle, disk: Disk, *, keep: bool, progress: Progress) -> Removed:
    """Remove a disk, at once if the machine runs; delete its file if armvm made it.

    With *keep*, a file that armvm made stays, under a name that belongs to no machine. Does not
    delete a file that QEMU still has open.
    """
    made = _is_made(machine, disk)
    file = disk.file or ""
    with progress.task(f"removing {disk.name} from {machine.name}"), shielded():
        gone = host_disks.detach(machine.domain, disk)
        if not made:
            return Removed(name=disk.name, kept=disk.file, later=not gone)
        if not gone:
            return Removed(name=disk.name, kept=file, later=True)
        pool = pools.need_pool(machine.connection, machine.record.pool, machine.name)
        volume = volumes.find_volume(pool, PurePosixPath(file).name)
        if volume is None:
            return Removed(name=disk.name, kept=None, later=False)
        kept = None
        if keep:
            new = _kept_name(machine, disk)
            local = is_local(uri_of(machine.connection))
            link_or_duplicate(
                machine.connection, pool, new, volume, lambda _done: None, local=local
            )
            kept = str(PurePosixPath(file).with_name(new))
        volumes.delete_volume(volume)
    return Removed(name=disk.name, kept=kept, later=False)


def _kept_name(machine: Handle, disk: Disk) -> str:
    """Return an unused volume name for a kept disk. No machine's name has an underscore."""
    pool = pools.need_pool(machine.connection, machine.record.pool, machine.name)
    stem, suffix = f"{machine.name}_{disk.name}", f".{disk.format}"
    number = 1
    while volumes.find_volume(pool, stem + ("" if number == 1 else f"_{number}") + suffix):
        number += 1
    return stem + ("" if number == 1 else f"_{number}") + suffix


def _mounted(machine: Handle, disk: Disk) -> str | None:
    """Return where a running guest has a disk or its partitions mounted; None if unknown."""
    if not agent.connected(machine.domain):
        return None
    device = f"/dev/disk/by-id/virtio-{disk.name}"
    try:
        words = ["lsblk", "-nro", "MOUNTPOINT", device]
        told = agent.output(machine.domain, words, timeout=_ASK_TIMEOUT * machine.patience)
    except ArmvmError:
        return None
    return next((line.strip() for line in told.splitlines() if line.strip()), None)
