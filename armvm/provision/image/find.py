"""Find, download, build, list and remove images."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base.errors import Conflict, NotFound, PermissionDenied, StorageError
from armvm.base.paths import config_files
from armvm.base.progress import Progress
from armvm.base.result import Digest, Doc, Size
from armvm.host.connection import Connection
from armvm.host.storage import base_image, pools, volumes
from armvm.images import obtain as obtaining
from armvm.images.cache.entry import Entry, matches
from armvm.images.cache.store import Cache
from armvm.images.check.qcow2 import inspect
from armvm.images.kernel import remove_boot_files
from armvm.images.model import FromImage, Image, ImageSource, Verified
from armvm.images.obtain import LOCAL
from armvm.images.reference import CatalogReference, LocalReference, parse
from armvm.images.resolve import Settings, resolve
from armvm.images.trust.provenance import words
from armvm.settings.names import shown
from armvm.settings.system import OperatingSystem
from armvm.settings.verify import Verify


def settings(verify: Verify | None = None) -> Settings:
    """Return mirrors, catalogs and key servers; *verify* as in Settings.

    Raises ConfigError and PermissionDenied.
    """
    return Settings.from_environ(os.environ, files=config_files(), verify=verify)


@dataclass(frozen=True, kw_only=True)
class CachedImage:
    """An image in the cache."""

    reference: Annotated[str | None, Doc("The image's reference.")]
    serial: Annotated[str | None, Doc("The catalog's version of the image.")]
    system: Annotated[str | None, Doc("The distribution and its version.")]
    digest: Digest | None
    size: Annotated[Size, Doc("Bytes on disk.")]
    verified: Annotated[
        Verified,
        Doc(
            "How the image was verified: a pinned key's signature, a digest in the catalog, a "
            "digest that the user gave, a build on this host, or not at all."
        ),
    ]
    signer: Annotated[str | None, Doc("Fingerprint of the key that signed it.")]
    provenance: Annotated[str | None, Doc("How the image was verified, in words.")]
    stored: Annotated[float | None, Doc("When it was stored, in seconds since 1970.")]
    used: Annotated[float | None, Doc("When it was last used, in seconds since 1970.")]
    path: Annotated[Path, Doc("The file.")]
    problem: Annotated[str | None, Doc("Why it cannot be used.")]
    used_by: Annotated[
        list[str] | None, Doc("Machines and goldens that use it; null: libvirt did not answer.")
    ]


@dataclass(frozen=True, kw_only=True)
class PulledImage:
    """An image that is now in the cache, or on this host."""

    reference: Annotated[str, Doc("The image's reference.")]
    serial: Annotated[str | None, Doc("The catalog's version of the image.")]
    path: Annotated[Path, Doc("The file.")]
    digest: Digest
    size: Annotated[Size, Doc("Bytes on disk.")]
    virtual_size: Annotated[Size, Doc("Size of the disk in bytes.")]
    verified: Annotated[
        Verified,
        Doc(
            "How the image was verified: a pinned key's signature, a digest in the catalog, a "
            "digest that the user gave, a build on this host, or not at all."
        ),
    ]
    signer: Annotated[str | None, Doc("Fingerprint of the key that signed it.")]
    provenance: Annotated[str, Doc("How the image was verified, in words.")]


def locate(reference: str, progress: Progress, verify: Verify | None = None) -> FromImage:
    """Return the source of an image, without downloading it; *verify* as in Settings.

    Raises ImageError, NotFound, …
    """
    source = resolve(reference, settings(verify), cache=Cache.default(), progress=progress)
    if source.location.startswith(LOCAL):
        from armvm.provision.image.local import is_recipe, recipe

        name = source.location.removeprefix(LOCAL)
        if not is_recipe(name):
            return _imported(source, name)
        made_by = recipe(name)
        source = replace(source, system=made_by.system)
        with suppress(StorageError, PermissionDenied, OSError):  # as in _sized
            if (entry := Cache.default().find_local(name, made_by.digest)) is not None:
                source = replace(
                    source,
                    digest=entry.digest,
                    size=entry.size,
                    virtual_size=inspect(entry.path).virtual_size,
                )
    return _sized(source)


def _sized(source: FromImage) -> FromImage:
    """Return a source with the size of its disk, if its file is in the cache."""
    if source.virtual_size is not None or source.digest is None:
        return source
    try:
        entry = Cache.default().find(source.digest)
        return replace(source, virtual_size=inspect(entry.path).virtual_size) if entry else source
    except (StorageError, PermissionDenied, OSError):
        return source  # a clone of a golden does not need the file; other uses report the error


def _imported(source: FromImage, name: str) -> FromImage:
    """Return a local source with the facts of the cached image of that name.

    The image was imported, or built from a recipe without a name.
    """
    entry = Cache.default().find_local(name)
    if entry is None:
        from armvm.provision.image.local import usual_references

        recipes = ", ".join(one.removeprefix(LOCAL) for one in usual_references())
        raise NotFound(
            f"image {source.reference} not found, and {shown(name)} is not a recipe",
            hint=f"import it: armvm image import FILE --as {name}; recipes: {recipes}",
        )
    size = inspect(entry.path).virtual_size
    return replace(
        source,
        digest=entry.digest,
        size=entry.size,
        system=entry.system,
        verified=entry.verified,
        virtual_size=size,
    )


def obtain(source: FromImage, progress: Progress) -> Image:
    """Return the verified local file of an image; download or build it if necessary."""
    cache = Cache.default()
    if not source.location.startswith(LOCAL):
        return obtaining.obtain(source, cache=cache, progress=progress, web=settings().web)
    from armvm.provision.image.local import builder, is_recipe, recipe_digest

    if not is_recipe(source.location.removeprefix(LOCAL)):
        return obtaining.obtain(source, cache=cache, progress=progress)
    return obtaining.obtain(
        source,
        cache=cache,
        progress=progress,
        build=builder(cache, progress),
        recipe=recipe_digest(source),
    )


def guess_system(reference: str) -> OperatingSystem | None:
    """Return the distribution as far as the reference's text shows it; asks no server."""
    known = settings()
    parsed = parse(reference, catalogs=known.names)
    if isinstance(parsed, CatalogReference):
        own = {one.name: one.distro for one in known.own}
        return OperatingSystem(distro=own.get(parsed.distro, parsed.distro), version=parsed.release)
    if isinstance(parsed, LocalReference):
        from armvm.provision.image.recipe import read

        if recipe := read(parsed.name):
            return recipe.system
        distro, _, version = parsed.name.partition("-")
        return OperatingSystem(distro=distro, version=version)
    return None


def words_for(source: ImageSource) -> str:
    """Return how an image was verified, in words."""
    return words(source.verified.value, source.signer)


def describe_pulled(image: Image) -> PulledImage:
    """Return an image as ``image pull`` reports it."""
    source = image.source
    return PulledImage(
        reference=source.reference,
        serial=source.serial,
        path=image.path,
        digest=image.digest,
        size=image.size,
        virtual_size=image.virtual_size,
        verified=source.verified,
        signer=source.signer,
        provenance=words_for(source),
    )


def cached() -> list[CachedImage]:
    """Return the images in the cache, newest first, with ``used_by`` None."""
    return [described(entry) for entry in Cache.default().entries()]


def described(entry: Entry) -> CachedImage:
    """Return an image of the cache, with ``used_by`` None."""
    return CachedImage(
        reference=entry.reference,
        serial=entry.serial,
        system=str(entry.system) if entry.system else None,
        digest=entry.digest,
        size=entry.size,
        verified=entry.verified,
        signer=entry.signer,
        provenance=None if entry.problem else words(entry.verified.value, entry.signer),
        stored=entry.stored,
        used=entry.used,
        path=entry.path,
        problem=entry.problem,
        used_by=None,
    )


def bases(connection: Connection, pool_name: str) -> dict[str, list[str]]:
    """Return the digests of the bases in a pool, each with the overlays that use it."""
    pool = pools.find_pool(connection, pool_name)
    if pool is None:
        return {}
    return {
        name.removeprefix("base-sha256-").removesuffix(".qcow2"): users
        for name, users in base_image.users_of(pool).items()
    }


def remove(text: str, connection: Connection | None, pool_name: str) -> list[str]:
    """Remove images by reference or digest: from the cache, and their unused bases from the pool.

    Returns the removed files and volumes. Raises NotFound if nothing matches, Conflict if a
    machine uses the base.
    """
    cache = Cache.default()
    entries = [entry for entry in cache.entries() if matches(entry, text)]
    pool = pools.find_pool(connection, pool_name) if connection is not None else None
    users = base_image.users_of(pool) if pool is not None else {}
    wanted = {base_image.base_name(entry.digest) for entry in entries if entry.digest}
    wanted |= {name for name in users if text.removeprefix("sha256:") in name and len(text) >= 12}
    for name in wanted & set(users):
        if users[name]:
            raise Conflict(
                f"{shown(text)} is in use by " + ", ".join(users[name]),
                hint="delete these machines and goldens first",
            )
    if not entries and not wanted & set(users):
        raise NotFound(f"image {shown(text)} not found", hint="list the images: armvm image list")
    for entry in entries:
        cache.remove(entry)
        if entry.digest:
            remove_boot_files(entry.digest, cache=cache)
    removed = [str(entry.path) for entry in entries]
    for name in sorted(wanted & set(users)):
        volume = volumes.find_volume(pool, name)
        if volume is not None:
            volumes.delete_volume(volume)
            removed.append(name)
    return removed
