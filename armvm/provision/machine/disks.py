"""The disks beside the root disk: check existing files, plan and create new ones.

A new disk is a volume in the machine's pool, and its name says so: ``NAME.disk-DISK.qcow2``. Any
other file was attached, and is never deleted.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
import struct
from dataclasses import replace
from pathlib import Path, PurePosixPath

from armvm.base.errors import (
    ConfigError,
    Conflict,
    HostileImage,
    ImageError,
    NotFound,
    PermissionDenied,
    StorageError,
    UsageError,
)
from armvm.host.connection import Connection, Pool, is_local, uri_of
from armvm.host.domain.disks import DiskSpec, user_of
from armvm.host.domain.instance import domain_names
from armvm.host.storage import transfer, volumes
from armvm.host.storage.base_image import is_base, volumes_on
from armvm.host.storage.volumes import volume_at
from armvm.images.check import qcow2
from armvm.images.check.formats import HEAD, DiskFormat, recognise
from armvm.provision.machine.plan import CreatePlan
from armvm.settings.disks import ExtraDisk
from armvm.settings.names import shown
from armvm.settings.user_path import absolute, given_path

#: Bytes of a file in which QEMU's processes lock what they do with it. Source: QEMU's
#: block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE.
_LOCKS, _LOCKS_LENGTH = 100, 164
#: fcntl(2); Python has no name for it.
_F_OFD_GETLK = 36
_FLOCK = struct.Struct("hhqqi4x")


def plan_disks(connection: Connection, plan: CreatePlan) -> CreatePlan:
    """Return the plan with its further disks. Raises the errors of `existing`."""
    machine = plan.machine
    directory = PurePosixPath(plan.spec.overlay).parent
    found: list[DiskSpec] = []
    for disk in machine.disks:
        if disk.file is not None:
            spec = existing(connection, disk)
            if any(one.file == spec.file for one in found):
                raise Conflict(f"{spec.file} cannot be attached twice")
            _assert_kept(machine.name, spec.file, directory)
        else:
            spec = planned(machine.name, disk, directory)
        found.append(spec)
    return replace(plan, spec=replace(plan.spec, disks=tuple(found)))


def _assert_kept(machine: str, file: str, directory: PurePosixPath) -> None:
    """Raise Conflict for a leftover volume that creating *machine* in *directory* removes."""
    path = PurePosixPath(file)
    there = str(path.parent) in (str(directory), os.path.realpath(directory))
    if there and volumes.is_volume_of(machine, path.name):
        raise Conflict(
            f"{file} cannot be attached: creating {machine} removes the volumes that an earlier "
            f"{machine} left behind",
            hint="choose another name for the machine",
        )


def planned(machine: str, disk: ExtraDisk, directory: PurePosixPath) -> DiskSpec:
    """Return a new disk of a machine whose pool is *directory*."""
    kind = disk.format or DiskFormat.QCOW2.value
    file = str(directory / volumes.disk_name(machine, disk.name, kind))
    return DiskSpec(name=disk.name, file=file, format=kind)


def create_disks(pool: Pool, machine: str, disks: tuple[ExtraDisk, ...]) -> None:
    """Create the volumes of a machine's new disks. Raises StorageError."""
    for disk in disks:
        if disk.size is not None:
            kind = disk.format or DiskFormat.QCOW2.value
            volumes.create_disk(pool, volumes.disk_name(machine, disk.name, kind), disk.size, kind)


def existing(connection: Connection, disk: ExtraDisk) -> DiskSpec:
    """Return an existing file as a disk to attach.

    Raises NotFound, UsageError, Conflict if something uses it, PermissionDenied, HostileImage for
    a qcow2 image that names other files, and ImageError for other formats.
    """
    text = disk.file or ""
    if is_local(uri_of(connection)):
        path = _local_path(text)
        head, size = _head(path)
    else:
        path = text
        if not path.startswith("/"):
            raise UsageError(
                f"a disk on a remote libvirt host requires an absolute path: {shown(text)}",
                hint="armvm attaches a file of the libvirt host, not of this one",
            )
        volume = volume_at(connection, path)
        if volume is None:
            raise NotFound(
                f"disk {shown(path)} not found on the libvirt host",
                hint="it must be a volume of a pool there: virsh pool-refresh POOL, "
                "virsh vol-list POOL",
            )
        size = volumes.physical_size(volume)
        head = transfer.read(connection, volume, length=min(HEAD, size)) if size else b""
    if not path.isprintable():
        raise UsageError(f"{shown(path)} cannot be attached: its path has unprintable characters")
    _assert_free(connection, path)
    return DiskSpec(name=disk.name, file=path, format=_format(path, head, size, disk.format))


def _local_path(text: str) -> str:
    try:
        path = absolute(given_path(text, "disk")).resolve()
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"disk {shown(text)} not found",
            hint="give a size for a new disk (20G), or the path of an existing file",
        ) from error
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot read {shown(text)}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"invalid path {shown(text)} of a disk: {error}") from error
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConfigError(f"{shown(str(path))} cannot be attached: it is {what}")
    return str(path)


def _head(path: str) -> tuple[bytes, int]:
    """Return a local file's first bytes, and its size. Raises Conflict if QEMU has locked it."""
    try:
        with Path(path).open("rb") as file:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _LOCKS, _LOCKS_LENGTH, 0)
            told = fcntl.fcntl(file.fileno(), _F_OFD_GETLK, asked)
            if _FLOCK.unpack(told)[0] != fcntl.F_UNLCK:
                raise Conflict(
                    f"{path} is in use by a QEMU process", hint="stop that machine first"
                )
            return file.read(HEAD), os.fstat(file.fileno()).st_size
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot read {path}",
            hint="armvm checks a disk's header before QEMU opens it: make the file readable",
        ) from error
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error


def _assert_free(connection: Connection, path: str) -> None:
    """Raise Conflict if a machine, a golden or an overlay uses the file *path*."""
    if (user := user_of(connection, path)) is not None:
        raise Conflict(f"{path} is in use by {user}", hint="two machines cannot share a disk")
    volume = volume_at(connection, path)
    if volume is None:
        return
    name, pool = volume.name(), volume.storagePoolLookupByVolume()
    for machine in domain_names(connection):
        if volumes.is_volume_of(machine, name) and not volumes.is_disk_of(machine, name):
            raise Conflict(f"{path} belongs to {machine}")
    below = volumes_on(pool, name)
    if is_base(name) or below:
        users = ", ".join(below) or "future machines"
        raise Conflict(f"{path} cannot be attached: it is the backing file of {users}")


def _format(path: str, head: bytes, size: int, wanted: str | None) -> str:
    """Return the format of a disk of *size* bytes to attach. Raises HostileImage, ImageError."""
    if wanted == DiskFormat.RAW.value:
        return wanted
    if not head.startswith(qcow2.MAGIC):
        if wanted is not None:
            raise ImageError(f"{path} is not a {wanted} image")
        _refuse_others(head, path)
        return DiskFormat.RAW.value
    qcow2.inspect_file(io.BytesIO(head), size=size, name=path)
    return DiskFormat.QCOW2.value


def _refuse_others(head: bytes, path: str) -> None:
    """Raise HostileImage for an archive or another tool's disk format; anything else is raw."""
    try:
        recognise(head, path)
    except HostileImage as error:
        if error.hint is not None and error.hint.startswith(("unpack it", "convert it")):
            raise HostileImage(
                error.message, hint=f"{error.hint}; or attach its bytes as they are: format=raw"
            ) from error


def make_one(pool: Pool, machine: str, disk: ExtraDisk) -> DiskSpec:
    """Create the volume of one more disk. Raises Conflict if it exists, StorageError."""
    kind = disk.format or DiskFormat.QCOW2.value
    name = volumes.disk_name(machine, disk.name, kind)
    there = volumes.find_volume(pool, name)
    if there is not None:
        if (user := user_of(pool.connect(), there.path())) is not None:
            raise Conflict(
                f"volume {name} already exists, and {user} uses it",
                hint="choose another name for the disk: name=…",
            )
        raise Conflict(
            f"volume {name} already exists, and is not attached",
            hint=f"attach it: armvm disk add {machine} file={there.path()},name={disk.name}; or "
            f"delete it: virsh vol-delete {there.path()}",
        )
    if disk.size is None:
        raise StorageError(f"disk {disk.name} has no size")
    file = volumes.create_disk(pool, name, disk.size, kind).path()
    return DiskSpec(name=disk.name, file=file, format=kind)
