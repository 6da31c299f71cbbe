"""File work that the cache and the local files share: hashing, locking, errors in our words."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from armvm.errors import PermissionDenied, StorageError


def hash_file(path: Path, *, sync: bool = False, told: Callable[[int], None] | None = None) -> str:
    """Return a file's ``sha256:HEX``; *sync* it first. *told* hears the bytes done."""
    sha256, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            done += len(chunk)
            if told:
                told(done)
    return f"sha256:{sha256.hexdigest()}"


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
        raise StorageError(
            f"the image cache at {path} cannot be used: {error.strerror or error}",
            hint="XDG_CACHE_HOME moves the cache elsewhere",
        ) from error


def acquire(path: Path, on_wait: Callable[[], None]) -> int:
    """Return the descriptor of a lock file, locked; it is made if it is not there.

    *on_wait* is called once if another process holds the lock. The holder may remove the file
    before it lets go: those who wait then make a new one. Raises OSError.
    """
    waited = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    on_wait()
                waited = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The one before us removed the file when it was done: then this lock is of no file.
            if _same_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
