"""Taking out of the cache what nobody needs: half-fetched files, entries of no use, old images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from armvm.images.cache.files import storage_errors, try_lock
from armvm.images.cache.store import Cache

#: Names that part() and partial() of a Cache give; its lock's is made of the same key.
_OURS = re.compile(r"\.([0-9a-f]{24})\.(?:part|part\.json|[0-9a-f]{16}\.partial)\Z")

#: Seconds after which a half-fetched file is not waited for any more (a week).
PART_AGE = 7 * 86400.0


def forget_parts(cache: Cache, *, age: float = PART_AGE, dry: bool = False) -> dict[Path, int]:
    """Remove what was half-written *age* seconds ago or earlier, and nobody writes now.

    Returns the files with their sizes in bytes; with *dry*, nothing is removed. Raises
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
    """Hold a lock file, and hand over True; False where a process has it."""
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
