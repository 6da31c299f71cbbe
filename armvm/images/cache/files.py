"""File operations for the cache and for local files: locks, copies, error translation."""

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
from armvm.base.paths import cache_dir, private_dir
from armvm.base.poll import until


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Translate file system errors in the cache into armvm's errors."""
    try:
        yield
    except PermissionError as error:
        raise PermissionDenied(
            f"the image cache {path} cannot be used: {error.strerror}",
            hint="check its owner, or set XDG_CACHE_HOME to another directory",
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"the image cache {path} cannot be used: {error.strerror or error}",
            hint=("free space with: armvm image prune --unused; " if full else "")
            + "XDG_CACHE_HOME sets another directory",
        ) from error


def cache_directory(name: str) -> Path:
    """Return a private directory in the cache, created if necessary."""
    path = cache_dir() / name
    with storage_errors(path):
        return private_dir(path)


def acquire(
    path: Path,
    on_wait: Callable[[], None],
    *,
    watch: Callable[[], None] | None = None,
    interval: float = 0.2,
) -> int:
    """Return the descriptor of a locked lock file; the file is created if necessary.

    *on_wait* is called once if another process holds the lock, and then *watch* every *interval*
    seconds. The holder may remove the file before it releases the lock: waiting processes then
    create a new one. Raises OSError.
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
            # If the previous holder removed the file, this lock is on a deleted file.
            if _same_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def held(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, which exists only meanwhile. *on_wait* as in `acquire`."""
    with storage_errors(path):
        descriptor = acquire(path, on_wait)
    try:
        yield
    finally:
        # Before the lock is released: waiting processes see that the name is gone, and retry.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Try to lock an open file; return whether it succeeded."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def copy_file(source: Path, target: Path) -> bool:
    """Copy a file's bytes to *target*, which is created or truncated, and sync it.

    Returns whether the copy shares its blocks with the source (a reflink: Btrfs, XFS), which
    takes neither time nor space. Raises OSError.
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


#: ioctl_ficlone(2): make a file share another one's blocks until either is written.
_FICLONE = 0x40049409


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
