"""A name of the user's in the cache, ``local:NAME``: one maker at a time, replaced as a whole."""

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
    """Hold a name while its image is made, and yield the reference; another process waits.

    Raises Conflict where there is an image of that name already and *replace* is not given.
    """
    reference = f"{LOCAL}{name}"
    wait = f"another armvm has {reference} in hand: waiting for it"
    with cache.lock(reference, on_wait=lambda: progress.say(wait)):
        if not replace and any(entry.name == name for entry in cache.entries()):
            raise Conflict(
                f"there is an image {reference} already",
                hint="--force replaces it; machines that were made from it keep their base",
            )
        yield reference


def keep_only(cache: Cache, entry: Entry) -> None:
    """Remove all other images of an entry's name."""
    for other in cache.entries():
        if other.name == entry.name and other.path != entry.path:
            cache.remove(other)
