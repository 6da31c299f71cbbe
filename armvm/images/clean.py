"""Taking out of the cache what nobody needs: half-fetched files, entries of no use, old images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from armvm.images.cache import Cache
from armvm.images.files import storage_errors, try_lock
from armvm.images.part import Part

#: Seconds after which a half-fetched file is not waited for any more (a week).
PART_AGE = 7 * 86400.0


def forget_parts(cache: Cache, *, age: float = PART_AGE, dry: bool = False) -> dict[Path, int]:
    """Remove what was half-fetched *age* seconds ago or earlier, and nobody fetches now.

    Returns the files with their sizes in bytes; with *dry*, nothing is removed. Raises
    StorageError, PermissionDenied.
    """
    root = cache.prepare()
    removed: dict[Path, int] = {}
    with storage_errors(root):
        for key in sorted({file.name.split(".")[1] for file in root.glob(".*.part*")}):
            part = Part(root / f".{key}.part")
            with _unless_held(root / f".{key}.lock") as free:
                newest = max((_mtime(file) for file in (part.path, part.note)), default=0.0)
                if free and cache.clock() - newest >= age:
                    removed[part.path] = part.size()
                    if not dry:
                        part.discard()
    return removed


def _mtime(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


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
