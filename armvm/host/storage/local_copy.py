"""Add a base to the pool without copying, if its file is on the pool's file system.

A clone of the file (a reflink: Btrfs, XFS) shares its blocks until one of the two is written to.
A hard link is the same file, so armvm makes one only if QEMU runs as the user who owns the cache:
a system daemon gives a base to QEMU's user, who could then change the verified file in the
cache.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from armvm.host.connection import Connection, Pool, is_local, is_session, uri_of
from armvm.host.storage import pools

#: ``_IOW(0x94, 9, int)`` of linux/fs.h, ioctl_ficlonerange(2).
FICLONE = 0x40049409


def place(connection: Connection, pool: Pool, name: str, path: Path, *, lasting: bool) -> bool:
    """Make the file *path* the volume *name* of a pool, complete from the start.

    *lasting* means that the file will not be written to, so a hard link is allowed. Returns
    False if the bytes must be copied: another host, another file system, a directory without
    write permission. Raises FileExistsError if the volume exists.
    """
    uri = uri_of(connection)
    if not is_local(uri):
        return False
    target = Path(pools.pool_path(pool)) / name
    return _cloned(path, target) or (lasting and is_session(uri) and _linked(path, target))


def _cloned(path: Path, target: Path) -> bool:
    """Make *target* a clone of a file; it gets its name only when complete."""
    try:
        with path.open("rb") as source:
            nameless = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o644)
            try:
                fcntl.ioctl(nameless, FICLONE, source.fileno())
                # Given a directory, Python calls linkat(), which follows the link in /proc.
                os.link(f"/proc/self/fd/{nameless}", target, src_dir_fd=nameless)
            finally:
                os.close(nameless)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True
