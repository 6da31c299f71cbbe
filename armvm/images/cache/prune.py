"""Remove partial downloads, unusable entries and old images from the cache."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from armvm.images.cache.files import storage_errors, try_lock
from armvm.images.cache.store import Cache

#: File names made by Cache.part() and Cache.partial(); the lock's contains the same key.
_OURS = re.compile(r"\.([0-9a-f]{24})\.(?:part|part\.json|[0-9a-f]{16}\.partial)\Z")

#: Seconds after which a partial download is no longer kept (a week).
PART_AGE = 7 * 86400.0


def forget_parts(cache: Cache, *, age: float = PART_AGE, dry: bool = False) -> dict[Path, int]:
    """Remove partial files that are *age* seconds old or older and not being written.

    Returns the files with their sizes in bytes; with *dry*, removes nothing. Raises
    StorageError, PermissionDenied.
    """
    root = cache.prepare()
    removed: dict[Path, int] = {}
    with storage_errors(root):
        found = [_OURS.match(file.name) for file in root.glob(".*.part*")]
        for key in sorted({match[1] for match in found if match}):
            with _unless_held(root / f".{key}.lock") as free:
                files = {file: file.stat() for file in root.glob(f".{key}.*part*")}
                newest = max((status.st_mtime for status in files.values()), default=0.0)
                if not free or cache.clock() - newest < age:
                    continue
                for file, status in files.items():
                    if file.suffix != ".json":
                        removed[file] = status.st_size
                    if not dry:
                        file.unlink(missing_ok=True)
    return removed


@contextmanager
def _unless_held(lock: Path) -> Iterator[bool]:
    """Hold a lock file and yield True, or yield False if another process holds it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        free = try_lock(descriptor)
        try:
            yield free
        finally:
            if free:
                lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
