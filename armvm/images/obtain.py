"""Get an image's bytes: from the cache, a local file, a server, or a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import count
from pathlib import Path

from armvm.base.errors import BuildFailed, NotFound
from armvm.base.progress import Progress, Task
from armvm.images import local_file, tar_disk
from armvm.images.cache.entry import Entry
from armvm.images.cache.files import storage_errors
from armvm.images.cache.prune import forget_parts
from armvm.images.cache.store import Cache
from armvm.images.check import formats, qcow2, qcow2_tables
from armvm.images.check.cpu import refuse_foreign_boot
from armvm.images.check.formats import DiskFormat
from armvm.images.fetch import download
from armvm.images.fetch.http import Web
from armvm.images.fetch.http_errors import of_catalog
from armvm.images.model import FromImage, Image
from armvm.images.reference import public_url

#: How often a waiting process checks the download's size before it shows progress without it.
_LOOKS = 10

#: The prefix in the location of an image built on this host.
LOCAL = "local:"


def obtain(
    source: FromImage,
    *,
    cache: Cache,
    progress: Progress,
    web: Web | None = None,
    build: Callable[[str], Path] | None = None,
    recipe: str | None = None,
) -> Image:
    """Return the verified local file of a source: from the cache, a local file, or created.

    *build* is called with a local image's name if it is not in the cache; it stores it with
    Cache.store_local() and returns its path. *recipe* is the required recipe digest of a
    local image (default: any). A failure leaves the cache unchanged, except for a download that
    can be resumed (lost connection, Ctrl-C): its partial file stays, see part.py.

    Raises Unreachable, FetchFailed, DigestMismatch, HostileImage, BuildFailed, NotFound,
    StorageError, PermissionDenied.
    """
    if source.location.startswith(LOCAL):
        return _built(source, cache, progress, build, recipe)
    if source.location.startswith("/"):
        return _here(source, cache, progress)
    with nullcontext() if "://" in source.reference else of_catalog():
        return _fetched(source, cache, progress, web or Web())


def _fetched(source: FromImage, cache: Cache, progress: Progress, web: Web) -> Image:
    if image := _cached(source, cache):
        return image
    shown = f"{source.reference} ({source.serial})" if source.serial else source.reference
    key = source.digest or source.location
    forget_parts(cache)
    with _turn(source, key, shown, cache, progress):
        if image := _cached(source, cache):
            return image
        part = cache.part(key)
        with cache.partial(key) as unpacked, storage_errors(part.path):
            fetched = download.download(
                web,
                source.location,
                part,
                unpacked,
                label=f"fetching {shown}",
                progress=progress,
                digest=source.digest,
                size=source.size,
                room=cache.check_room,
            )
            try:
                file = part.path if fetched.unpacked is None else unpacked
                image = _admitted(file, source, fetched, key, cache, progress)
            except Exception:
                part.discard()  # another download would give the same
                raise
            part.discard()
            return image


def _admitted(
    file: Path,
    source: FromImage,
    fetched: download.Fetched,
    key: str,
    cache: Cache,
    progress: Progress,
) -> Image:
    """Check a downloaded *file* as untrusted, and store it, or the disk that it contains."""
    name = public_url(source.location)
    if not tar_disk.is_tar(formats.read_head(file)):
        return _stored(file, source, fetched.digest, fetched.unpacked, key, cache, progress)
    with cache.partial(key) as disk:
        label = f"unpacking {name.rpartition('/')[2]}"
        with progress.task(label):
            tar_disk.extract(file, disk, name=name, room=cache.check_room)
        return _stored(disk, source, fetched.digest, "", key, cache, progress)


def _stored(
    file: Path,
    source: FromImage,
    digest: str,
    content: str | None,
    key: str,
    cache: Cache,
    progress: Progress,
) -> Image:
    """Check a disk as untrusted, and store it; *content* is as for Cache.store()."""
    name = public_url(source.location)
    format = formats.recognise(formats.read_head(file), name)
    if format is DiskFormat.RAW:
        refuse_foreign_boot(file, format, name)
        return _converted(file, source, digest, key, cache, progress)
    qcow2_tables.check(file, name=name)
    refuse_foreign_boot(file, format, name)
    entry = cache.store(file, source=source, digest=digest, content=content)
    return _image(entry, source)


@contextmanager
def _turn(
    source: FromImage, key: str, shown: str, cache: Cache, progress: Progress
) -> Iterator[None]:
    """Hold the lock for *key*; a waiting process shows the progress of the other's download."""
    part = cache.part(key)
    with ExitStack() as held:
        with ExitStack() as waiting:
            tasks: list[Task] = []
            looks = count()

            def watch() -> None:
                origin = part.origin()
                total = source.size or (origin.total if origin else None)
                # The other process may not know the size yet.
                if not tasks and (total or next(looks) == _LOOKS):
                    label = f"waiting for another armvm process that is downloading {shown}"
                    tasks.append(waiting.enter_context(progress.task(label, total=total)))
                if tasks and (size := part.size()):
                    tasks[0].update(size)

            held.enter_context(cache.lock(key, on_wait=lambda: None, watch=watch))
        yield


def _here(source: FromImage, cache: Cache, progress: Progress) -> Image:
    path = Path(source.location)
    format, size, virtual_size = local_file.examine(path)
    digest = local_file.digest_of(path, source.digest, cache=cache, progress=progress)
    if format is DiskFormat.QCOW2:
        return Image(source=source, path=path, digest=digest, size=size, virtual_size=virtual_size)
    wait = f"waiting for another armvm process that is converting {path.name}"
    with cache.lock(digest, on_wait=lambda: progress.say(wait)):
        if entry := cache.find(digest):
            cache.touch(entry)
            return _image(entry, source)
        return _converted(path, source, digest, digest, cache, progress)


def _converted(
    raw: Path, source: FromImage, digest: str, key: str, cache: Cache, progress: Progress
) -> Image:
    """Convert a raw image into the cache; the caller holds the lock for *key*."""
    label = f"converting {public_url(source.location).rpartition('/')[2]} to qcow2"
    with cache.partial(key) as target:
        local_file.convert_raw(raw, target, label=label, cache=cache, progress=progress)
        qcow2.inspect(target, name=source.reference)
        return _image(cache.store(target, source=source, digest=digest, content=""), source)


def _built(
    source: FromImage,
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
            f"image {source.reference} not found: it has not been built on this host",
            hint=f"build it with: armvm image build {name}",
        )
    wait = f"waiting for another armvm process that is building {source.reference}"
    with cache.lock(source.location, on_wait=lambda: progress.say(wait)):
        if not cache.find_local(name, recipe):
            build(name)
        entry = cache.find_local(name, recipe)
    if entry is None:
        raise BuildFailed(f"the build of {source.reference} stored no image in the cache")
    return _image(entry, source)


def _cached(source: FromImage, cache: Cache) -> Image | None:
    entry = cache.find(source.digest) if source.digest else None
    if entry is None:
        return None
    entry = cache.vouch(entry, source)
    cache.touch(entry)
    return _image(entry, source)


def _image(entry: Entry, source: FromImage) -> Image:
    disk = qcow2.inspect(entry.path)
    return Image(
        source=source,
        path=entry.path,
        digest=entry.digest,
        size=entry.size,
        virtual_size=disk.virtual_size,
    )
