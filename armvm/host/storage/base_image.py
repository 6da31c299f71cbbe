"""Bases: images in the pool that back the overlays. Safe with concurrent processes.

Two processes may need the same base at once, and either may be killed at any point. libvirt
cannot rename a volume, so armvm recognizes a complete base by its size: an upload goes from the
first byte to the last. A base that is too small is being written (libvirt refuses to delete it),
or was left by a process that died.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import libvirt

from armvm.base.errors import ArmvmError, Conflict
from armvm.base.poll import until
from armvm.base.progress import Progress, Quiet
from armvm.base.signals import shielded
from armvm.host.connection import Connection, Pool, Volume, errors
from armvm.host.storage import local_copy, pools, transfer, volumes
from armvm.host.xml import parse

#: Seconds without growth after which an incomplete base counts as abandoned.
PATIENCE = 5.0
#: Seconds between two looks at it.
_LOOK = 0.5


def base_name(digest: str) -> str:
    """Return a base's volume name; *digest* is ``sha256:<hex>``."""
    return f"base-{digest.replace(':', '-')}.qcow2"


def ensure_base(
    connection: Connection,
    pool: Pool,
    digest: str,
    path: Path,
    *,
    progress: Progress,
    lasting: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Volume:
    """Return the base for an image file, uploading it if the pool does not have it.

    If the pool is on the file's own file system, armvm clones or links the file, see `local_copy`;
    *lasting* means that the file will not be written to. Raises StorageError if the pool is full
    or cannot be written. An interrupted upload leaves nothing behind.
    """
    size, name = path.stat().st_size, base_name(digest)
    while True:
        volume = volumes.find_volume(pool, name)
        if volume is None:
            # libvirt has not listed a base yet that another connection created.
            pools.check_space(pool, 0)
            volume = volumes.find_volume(pool, name)
        if volume is None:
            pools.check_space(pool, size)
            with contextlib.suppress(Conflict, FileExistsError):
                if local_copy.place(connection, pool, name, path, lasting=lasting):
                    return _seen(pool, name)
                return _upload(connection, pool, name, path, size, progress)
            continue
        # An image converted on another host has another size under the same digest, but a base
        # that machines use is complete.
        if volumes.physical_size(volume) == size or users_of(pool).get(name):
            return volume
        _wait_or_remove(volume, size, progress, sleep)


def _upload(
    connection: Connection, pool: Pool, name: str, path: Path, size: int, progress: Progress
) -> Volume:
    ours = False
    try:
        # No signal may interrupt this, or the volume's creator would be unknown.
        with shielded():
            volume = volumes.create_empty(pool, name)
            ours = True
        with progress.task(f"copying the image to the pool {pool.name()}", total=size) as task:
            transfer.upload_file(connection, volume, path, task.update)
    except BaseException:
        if ours:
            with shielded():
                remove_aborted(volume)
        raise
    return _seen(pool, name)


def _seen(pool: Pool, name: str) -> Volume:
    """Return a complete volume, after libvirt has recognized its format as qcow2."""
    with errors("reading the storage pool"):
        pools.refresh(pool)
    return volumes.need_volume(pool, name)


def remove_if_abandoned(
    pool: Pool, digest: str, size: int, *, sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """Remove a base that is smaller than *size* bytes and abandoned; return its name."""
    name = base_name(digest)
    users = users_of(pool)
    volume = volumes.find_volume(pool, name)
    if volume is None or users.get(name) or volumes.physical_size(volume) == size:
        return []
    _wait_or_remove(volume, size, Quiet(), sleep)
    return [name] if volumes.find_volume(pool, name) is None else []


def remove_aborted(volume: Volume) -> None:
    """Remove a volume after an aborted upload: the daemon may need a moment to close it."""

    def removed() -> bool:
        with contextlib.suppress(ArmvmError):
            volumes.delete_volume(volume)
            return True
        return False

    until(removed, timeout=30, interval=0.1)


def _wait_or_remove(
    volume: Volume, size: int, progress: Progress, sleep: Callable[[float], None]
) -> None:
    """Wait for another process's upload to end; remove the base if it is abandoned."""
    looks, before = 0, -1
    with progress.task("waiting for another armvm that is copying this image", total=size) as task:

        def outcome() -> str | None:
            nonlocal looks, before
            try:
                now = volumes.physical_size(volume)
            except ArmvmError:
                return "removed"
            task.update(now)
            if now >= size:
                return "complete"
            looks, before = (looks + 1 if now == before else 0), now
            return "abandoned" if looks * _LOOK >= PATIENCE else None

        found = until(outcome, timeout=None, interval=_LOOK, sleep=sleep)
    if found == "abandoned":
        with contextlib.suppress(ArmvmError):
            volumes.delete_volume(volume)


def users_of(pool: Pool) -> dict[str, list[str]]:
    """Return each base's name with the overlays in *pool* that it backs."""
    backings = _backings(pool)
    users: dict[str, list[str]] = {name: [] for name in backings if is_base(name)}
    for name, backing in backings.items():
        if not is_base(name) and is_base(backing):
            users.setdefault(backing, []).append(name)
    return users


def volumes_on(pool: Pool, name: str) -> list[str]:
    """Return the names of the volumes in *pool* that the volume *name* backs."""
    return sorted(one for one, backing in _backings(pool).items() if backing == name)


def backing_path(volume: Volume) -> str | None:
    """Return the path of a volume's backing file; None if it has none."""
    with errors(f"reading the volume {volume.name()}"):
        return parse(volume.XMLDesc(0)).findtext("backingStore/path") or None


def is_base(name: str) -> bool:
    """Return whether a volume is an image's base, by its name."""
    return name.startswith("base-sha256-")


def _backings(pool: Pool) -> dict[str, str]:
    """Return each volume's name with the file name of its backing file, or an empty string."""
    found = {}
    with errors("reading the storage pool"):
        pools.refresh(pool)
        for volume in pool.listAllVolumes(0):
            try:
                backing = parse(volume.XMLDesc(0)).findtext("backingStore/path")
            except libvirt.libvirtError:
                continue  # deleted in between
            found[volume.name()] = Path(backing).name if backing else ""
    return found
