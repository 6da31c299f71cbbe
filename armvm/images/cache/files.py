"""File work that the cache and the local files share: locking, copying, errors in our words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from armvm.base.errors import PermissionDenied, StorageError
from armvm.base.poll import until


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system says about the cache into our errors."""
    try:
        yield
    except PermissionError as error:
        raise PermissionDenied(
            f"the image cache at {path} cannot be used: {error.strerror}",
            hint="check who owns it; XDG_CACHE_HOME moves the cache elsewhere",
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"the image cache at {path} cannot be used: {error.strerror or error}",
            hint=("armvm image prune --unused frees room; " if full else "")
            + "XDG_CACHE_HOME moves the cache elsewhere",
        ) from error


def acquire(
    path: Path,
    on_wait: Callable[[], None],
    *,
    watch: Callable[[], None] | None = None,
    interval: float = 0.2,
) -> int:
    """Return the descriptor of a lock file, locked; it is made if it is not there.

    *on_wait* is called once if another process holds the lock, and *watch* then every *interval*
    seconds. The holder may remove the file before it lets go: those who wait then make a new
    one. Raises OSError.
    """
    waited = False

    def try_and_tell() -> bool:
        nonlocal waited
        if try_lock(descriptor):
            return True
        if not waited:
            on_wait()
        waited = True
        if watch is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return True
        watch()
        return False

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            until(try_and_tell, timeout=None, interval=interval)
            # The one before us removed the file when it was done: then this lock is of no file.
            if _same_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file if nobody has; return whether it is ours."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def copy_file(source: Path, target: Path) -> bool:
    """Copy a file's bytes to *target*, which is made or emptied, and sync it.

    Returns whether it shares its blocks with the source (a reflink: Btrfs, XFS), which takes
    neither time nor room. Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with source.open("rb") as reading, os.fdopen(os.open(target, flags, 0o600), "wb") as writing:
        shared = False
        with contextlib.suppress(OSError):
            fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())
            shared = True
        if not shared:
            shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())
    return shared


#: ioctl_ficlone(2): let a file have another one's blocks until either writes.
_FICLONE = 0x40049409


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
