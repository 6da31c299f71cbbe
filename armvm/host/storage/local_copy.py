"""A base put into the pool without copying its bytes, where its file lies on the pool's own disk.

A clone of the file (a reflink: Btrfs, XFS) shares its blocks until one of the two is written to.
A hard link is the very same file, so it is made only where QEMU runs as the user who owns the
cache: a system daemon gives a base to QEMU's user, who could then change what the cache vouches
for.
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
    """Let the file *path* be the volume *name* of a pool, whole from its first moment.

    *lasting* says that nobody writes to the file, so that a hard link may be made of it. Returns
    False where its bytes have to be copied: another host, another file system, a directory that
    we may not write to. Raises FileExistsError when there is such a volume.
    """
    uri = uri_of(connection)
    if not is_local(uri):
        return False
    target = Path(pools.pool_path(pool)) / name
    return _cloned(path, target) or (lasting and is_session(uri) and _linked(path, target))


def _cloned(path: Path, target: Path) -> bool:
    """Make *target* a clone of a file; it has no name until it is whole."""
    try:
        with path.open("rb") as source:
            nameless = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o644)
            try:
                fcntl.ioctl(nameless, FICLONE, source.fileno())
                # With a directory named, Python calls linkat(), which follows the link in /proc.
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
