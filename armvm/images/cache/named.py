"""Named images in the cache, ``local:NAME``: created by one process at a time, then replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from armvm.base.errors import Conflict
from armvm.base.progress import Progress
from armvm.images.cache.entry import Entry
from armvm.images.cache.store import Cache
from armvm.images.obtain import LOCAL


@contextmanager
def reserved(cache: Cache, name: str, *, replace: bool, progress: Progress) -> Iterator[str]:
    """Reserve a name while its image is created, and yield the reference; other processes wait.

    Raises Conflict if the image exists and *replace* is false.
    """
    reference = f"{LOCAL}{name}"
    wait = f"waiting for another armvm process that is creating {reference}"
    with cache.lock(reference, on_wait=lambda: progress.say(wait)):
        if not replace:
            check_free(cache, name)
        yield reference


def check_free(cache: Cache, name: str) -> None:
    """Raise Conflict if an image has a name."""
    if any(entry.name == name for entry in cache.entries()):
        raise Conflict(
            f"image {LOCAL}{name} already exists",
            hint="replace it with --force; existing machines keep their base",
        )


def keep_only(cache: Cache, entry: Entry) -> None:
    """Remove all other images with an entry's name."""
    for other in cache.entries():
        if other.name == entry.name and other.path != entry.path:
            cache.remove(other)
