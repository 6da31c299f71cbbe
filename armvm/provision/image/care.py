"""Prune, verify, import and export the images on this host."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.errors import ArmvmError, ConfigError, Conflict, HostileImage, NotFound
from armvm.base.progress import Progress
from armvm.base.result import Digest, Doc, Size
from armvm.host.connection import Connection, Pool
from armvm.host.domain.disks import users_of
from armvm.host.domain.instance import instances
from armvm.host.storage import base_image, pools, volumes
from armvm.images.cache import importing
from armvm.images.cache.entry import Entry, matches
from armvm.images.cache.files import storage_errors
from armvm.images.cache.prune import forget_parts
from armvm.images.cache.store import Cache
from armvm.images.check import qcow2_tables
from armvm.images.check.cpu import without_boot_loader
from armvm.images.check.formats import DiskFormat
from armvm.images.digest import hash_file
from armvm.images.distros import lts, simplestreams, ubuntu
from armvm.images.fetch import documents
from armvm.images.kernel import remove_boot_files
from armvm.images.model import Verified
from armvm.images.obtain import LOCAL
from armvm.images.reference import parse, parse_sha256
from armvm.provision.image.find import settings
from armvm.provision.image.local import is_recipe
from armvm.settings.names import shown
from armvm.settings.user_path import absolute


@dataclass(frozen=True, kw_only=True)
class RemovedFile:
    """A file or volume that was removed."""

    what: Annotated[
        str,
        Doc(
            "image, base, half-fetched (a partial download), or unusable and why.",
            pattern="^(image|base|half-fetched|unusable: .+)$",
        ),
    ]
    reference: Annotated[str | None, Doc("The image's reference.")]
    path: Annotated[str, Doc("The file, or the base's volume name.")]
    size: Size


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """A cached image that was checked."""

    what: Annotated[str, Doc("What it is.", const="image")] = "image"
    reference: Annotated[str | None, Doc("The image's reference.")]
    path: Annotated[Path, Doc("The file.")]
    size: Size
    status: Annotated[
        str,
        Doc(
            "ok; changed: its digest is not the stored one; hostile; unusable.",
            enum=["ok", "changed", "hostile", "unusable"],
        ),
    ]
    problem: Annotated[str | None, Doc("What is wrong.")]


@dataclass(frozen=True, kw_only=True)
class BoardChanges:
    """What was changed in a board's root file system."""

    removed_kernels: Annotated[list[str], Doc("Versions of the board's kernels, removed.")]
    masked_services: Annotated[list[str], Doc("Services of its first boot on a card, masked.")]
    unused_mounts: Annotated[list[str], Doc("Mount points in its fstab, commented out.")]


@dataclass(frozen=True, kw_only=True)
class ImportedImage:
    """The image that is now local:NAME."""

    reference: Annotated[str, Doc("local:NAME.", pattern="^local:")]
    path: Annotated[Path, Doc("The file in the cache.")]
    digest: Digest
    size: Size
    verified: Annotated[
        Verified,
        Doc(
            "How the image was verified: a pinned key's signature, a digest in the catalog, a "
            "digest that the user gave, a build on this host, or not at all."
        ),
    ]
    board: Annotated[
        BoardChanges | None,
        Doc("With --bootable: what was changed in the board's root file system; else null."),
    ]


@dataclass(frozen=True, kw_only=True)
class ExportedImage:
    """The copy of a cached image."""

    reference: Annotated[str, Doc("The image's reference.")]
    path: Annotated[Path, Doc("The file that was written.")]
    digest: Annotated[Digest, Doc("The file's digest.")]
    size: Size
    reflink: Annotated[bool, Doc("Whether the copy shares blocks with the cache.")]


def lts_references(progress: Progress) -> list[str]:
    """Return a reference for each supported LTS release of Ubuntu, newest first.

    Raises Unreachable, FetchFailed.
    """
    known = settings()
    tree = known.mirrors.get("ubuntu", ubuntu.BASE).rstrip("/") + "/"
    index = documents.document(known.web, tree + simplestreams.INDEX_PATH, progress=progress)
    path = simplestreams.products_path(index)
    products = documents.document(known.web, tree + path, progress=progress)
    return [f"ubuntu:{version}" for version in lts.supported_lts(products)]


def prune(
    *,
    older_than: float | None,
    unused: bool,
    connection: Connection | None,
    pool_name: str,
    dry: bool,
) -> list[RemovedFile]:
    """Remove partial downloads, unusable entries, and images by age and use.

    Images are only removed with *older_than* (seconds since their last use) or *unused* (no
    machine or golden in the pool uses them); with both, an image must match both. *unused* also
    removes their bases from the pool, and unused bases without an image: those of local files.
    Returns the removed files, or with *dry* the files that would be removed. Raises StorageError,
    PermissionDenied.
    """
    cache = Cache.default()
    removed = [
        RemovedFile(what="half-fetched", reference=None, path=str(path), size=size)
        for path, size in forget_parts(cache, age=0.0, dry=dry).items()
    ]
    pool = pools.find_pool(connection, pool_name) if connection is not None else None
    users = base_image.users_of(pool) if pool is not None else {}
    entries = cache.entries()
    for entry in entries:
        name = base_image.base_name(entry.digest) if entry.digest else ""
        old = older_than is None or cache.clock() - entry.used >= older_than
        free = not unused or not users.get(name)
        if not entry.problem and (not (unused or older_than is not None) or not old or not free):
            continue
        what = f"unusable: {entry.problem}" if entry.problem else "image"
        removed.append(_removed(what, entry, str(entry.path), _size(entry.path)))
        if not dry:
            cache.remove(entry)
            if entry.digest:
                remove_boot_files(entry.digest, cache=cache)
        volume = volumes.find_volume(pool, name) if unused and name in users else None
        if volume is not None:
            size = volumes.physical_size(volume)
            removed.append(_removed("base", entry, name, size))
            if not dry:
                volumes.delete_volume(volume)
    if pool is not None and unused:
        cached = {base_image.base_name(one.digest) for one in entries if one.digest}
        lone = [name for name, overlays in users.items() if not overlays and name not in cached]
        removed += _prune_bases(pool, lone, older_than=older_than, dry=dry)
    return removed


def _prune_bases(
    pool: Pool, names: Sequence[str], *, older_than: float | None, dry: bool
) -> list[RemovedFile]:
    """Remove the bases *names*, which have no overlays in their pool, unless a domain needs them.

    A machine that is being created is defined before its base is copied: its image counts too.
    """
    connection = pool.connect()
    found = {name: one for name in names if (one := volumes.find_volume(pool, name)) is not None}
    taken = users_of(connection, [one.path() for one in found.values()])
    wanted = {
        base_image.base_name(one.record.image.get("digest", ""))
        for one in instances(connection)
        if one.record.creator is not None
    }
    removed = []
    for name, volume in sorted(found.items()):
        if volume.path() in taken or name in wanted:
            continue
        written = volumes.modified(volume) or time.time()
        if older_than is not None and time.time() - written < older_than:
            continue
        size = volumes.physical_size(volume)
        if not dry:
            try:
                volumes.delete_volume(volume)
            except ArmvmError:  # libvirt refuses it while another process uploads it
                continue
        removed.append(RemovedFile(what="base", reference=None, path=name, size=size))
    return removed


def verify(references: Sequence[str], progress: Progress) -> list[CheckedImage]:
    """Check images in the cache: all, or those that match *references*.

    Returns a row for each, with its ``status``: ``ok``, ``changed`` (its digest differs from the
    stored one), ``hostile`` or ``unusable``. Raises NotFound for a reference that matches no
    image, StorageError, PermissionDenied.
    """
    cache = Cache.default()
    entries = cache.entries()
    for text in references:
        if not any(matches(entry, text) for entry in entries):
            raise NotFound(
                f"image {shown(text)} not found", hint="list the images: armvm image list"
            )
    wanted = [e for e in entries if not references or any(matches(e, t) for t in references)]
    return [_checked(one, progress) for one in wanted]


def _checked(entry: Entry, progress: Progress) -> CheckedImage:
    status, problem = _state(entry, progress)
    return CheckedImage(
        reference=entry.reference or None,
        path=entry.path,
        size=entry.size,
        status=status,
        problem=problem,
    )


def _state(entry: Entry, progress: Progress) -> tuple[str, str | None]:
    """Return an image's status and its problem."""
    if entry.problem:
        return "unusable", entry.problem
    with storage_errors(entry.path):
        try:
            with progress.task(f"reading {entry.path.name}", total=entry.size) as task:
                found = hash_file(entry.path, told=task.update)
            if found != entry.content:
                return "changed", f"{found}, was {entry.content}"
            qcow2_tables.check(entry.path)
        except FileNotFoundError:
            return "unusable", "the image was removed during the check"
        except HostileImage as error:
            return "hostile", error.message
    return "ok", None


def import_image(
    file: Path, name: str, *, sha256: str | None, force: bool, progress: Progress
) -> ImportedImage:
    """Copy a file into the cache as ``local:NAME``; see import_file().

    The names of recipes are always refused: ``local:debian-12`` means an image built on this
    host from signed packages, and a machine's record says so. Raises Conflict, ConfigError.
    """
    digest = check_import(name, sha256)
    cache = Cache.default()
    path = absolute(file)
    entry = importing.import_file(
        path, name, cache=cache, progress=progress, digest=digest, replace=force
    )
    if without_boot_loader(entry.path, DiskFormat.QCOW2):
        progress.warn(
            f"{path} has no boot loader for UEFI, so a machine cannot boot it; for a board, "
            "use --bootable"
        )
    return ImportedImage(
        reference=entry.reference,
        path=entry.path,
        digest=entry.digest,
        size=entry.size,
        verified=entry.verified,
        board=None,
    )


def check_import(name: str, sha256: str | None) -> str | None:
    """Check the name of an image to import; return its digest in armvm's form.

    Raises Conflict for a recipe's name, ConfigError.
    """
    parse(f"{LOCAL}{name}")
    if is_recipe(name):
        raise Conflict(
            f"{LOCAL}{name} is reserved for armvm image build", hint="choose another name"
        )
    digest = parse_sha256(sha256.removeprefix("sha256:")) if sha256 else None
    if sha256 and digest is None:
        raise ConfigError(f"invalid sha256 {shown(sha256)}", hint="expected 64 hex digits")
    return digest


def export_image(reference: str, target: Path, *, force: bool) -> ExportedImage:
    """Copy a cached image to a file; if several match *reference*, the newest.

    Raises NotFound, Conflict, StorageError, PermissionDenied.
    """
    cache = Cache.default()
    found = [e for e in cache.entries() if matches(e, reference) and not e.problem]
    sound = cache.sound(found[0]) if found else None
    if sound is None:
        raise NotFound(
            f"image {shown(reference)} not found, or its file cannot be used",
            hint="download it: armvm image pull; list the images: armvm image list",
        )
    target = absolute(target)
    shared = importing.export_file(sound, target, replace=force)
    return ExportedImage(
        reference=sound.reference,
        path=target,
        digest=sound.content,
        size=sound.size,
        reflink=shared,
    )


def _removed(what: str, entry: Entry, path: str, size: int) -> RemovedFile:
    return RemovedFile(what=what, reference=entry.reference or None, path=path, size=size)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
