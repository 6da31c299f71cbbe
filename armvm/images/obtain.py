"""Bringing an image's bytes: from the cache, from where they are, from a server, or by a build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from armvm.errors import BuildFailed, NotFound
from armvm.images import fetch, formats, localfile, qcow2
from armvm.images.cache import Cache
from armvm.images.entry import Entry
from armvm.images.files import storage_errors
from armvm.images.formats import DiskFormat
from armvm.images.model import Image, ImageSource
from armvm.images.reference import public_url
from armvm.images.transport import Web
from armvm.progress import Progress

#: How the location of an image built here begins; its name follows.
LOCAL = "local:"


def obtain(
    source: ImageSource,
    *,
    cache: Cache,
    progress: Progress,
    web: Web | None = None,
    build: Callable[[str], Path] | None = None,
    recipe: str | None = None,
) -> Image:
    """Return the verified local file of a source: from the cache, from where it is, or made.

    *build* is called with a local image's name when it is not in the cache; it stores it with
    Cache.store_local() and returns its path. *recipe* is the recipe digest the local image must
    have (any by default). After any failure, and Ctrl-C, the cache is as it was before.

    Raises Unreachable, FetchFailed, DigestMismatch, HostileImage, BuildFailed, NotFound,
    StorageError, PermissionDenied.
    """
    if source.location.startswith(LOCAL):
        return _built(source, cache, progress, build, recipe)
    if source.location.startswith("/"):
        return _here(source, cache, progress)
    return _fetched(source, cache, progress, web or Web())


def _fetched(source: ImageSource, cache: Cache, progress: Progress, web: Web) -> Image:
    if image := _cached(source, cache):
        return image
    shown = f"{source.reference} ({source.serial})" if source.serial else source.reference
    key = source.digest or source.location
    wait = f"another armvm is fetching {shown}: waiting for it"
    with cache.lock(key, on_wait=lambda: progress.say(wait)):
        if image := _cached(source, cache):
            return image
        with cache.partial(key) as partial, storage_errors(partial):
            fetched = fetch.download(
                web,
                source.location,
                partial,
                label=f"fetching {shown}",
                progress=progress,
                digest=source.digest,
                size=source.size,
                room=cache.check_room,
            )
            name = public_url(source.location)
            format = formats.recognise(formats.read_head(partial), name)
            if format is DiskFormat.RAW:
                return _converted(partial, source, fetched.digest, key, cache, progress)
            qcow2.inspect(partial, name=name)
            return _image(cache.store(partial, source=source, digest=fetched.digest), source)


def _here(source: ImageSource, cache: Cache, progress: Progress) -> Image:
    path = Path(source.location)
    format, size = localfile.look(path)
    disk = qcow2.inspect(path) if format is DiskFormat.QCOW2 else None
    digest = localfile.digest_of(path, cache=cache, progress=progress)
    fetch.check_digest(digest, source.digest, str(path))
    if disk:
        return Image(
            source=source, path=path, digest=digest, size=size, virtual_size=disk.virtual_size
        )
    wait = f"another armvm is converting {path.name}: waiting for it"
    with cache.lock(digest, on_wait=lambda: progress.say(wait)):
        if entry := cache.find(digest):
            cache.touch(entry)
            return _image(entry, source)
        return _converted(path, source, digest, digest, cache, progress)


def _converted(
    raw: Path, source: ImageSource, digest: str, key: str, cache: Cache, progress: Progress
) -> Image:
    """Convert a raw image into the cache; the caller holds the lock for *key*."""
    label = f"converting {public_url(source.location).rpartition('/')[2]} to qcow2"
    with cache.partial(key) as target:
        localfile.convert_raw(raw, target, label=label, cache=cache, progress=progress)
        qcow2.inspect(target, name=source.reference)
        return _image(cache.store(target, source=source, digest=digest, converted=True), source)


def _built(
    source: ImageSource,
    cache: Cache,
    progress: Progress,
    build: Callable[[str], Path] | None,
    recipe: str | None,
) -> Image:
    name = source.location.removeprefix(LOCAL)
    if entry := cache.find_local(name, recipe):
        cache.touch(entry)
        return _image(entry, source)
    if build is None:
        raise NotFound(
            f"the image {source.reference} has not been built on this host",
            hint=f"armvm image build {name}",
        )
    wait = f"another armvm is building {source.reference}: waiting for it"
    with cache.lock(source.location, on_wait=lambda: progress.say(wait)):
        if not cache.find_local(name, recipe):
            build(name)
        entry = cache.find_local(name, recipe)
    if entry is None:
        raise BuildFailed(f"the build of {source.reference} left no image in the cache")
    return _image(entry, source)


def _cached(source: ImageSource, cache: Cache) -> Image | None:
    entry = cache.find(source.digest) if source.digest else None
    if entry is None:
        return None
    entry = cache.vouch(entry, source)
    cache.touch(entry)
    return _image(entry, source)


def _image(entry: Entry, source: ImageSource) -> Image:
    disk = qcow2.inspect(entry.path)
    return Image(
        source=source,
        path=entry.path,
        digest=entry.digest,
        size=entry.size,
        virtual_size=disk.virtual_size,
    )
