"""Images built here: their recipes, and the cache that keeps one for each recipe."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from armvm.errors import Conflict, NotFound
from armvm.images.cache import Cache
from armvm.images.model import ImageSource
from armvm.images.obtain import LOCAL
from armvm.progress import Progress
from armvm.provision.build import VERSIONS, Recipe, build_image
from armvm.spec.names import shown

#: The recipes by the names that ``image build`` and ``local:`` take.
RECIPES = {f"debian-{version}": Recipe(version=version) for version in VERSIONS}


#: The variable that names another package archive to build from. (ARMVM_MIRROR_DEBIAN names one
#: of images.)
MIRROR_VARIABLE = "ARMVM_ARCHIVE_DEBIAN"


def recipe(name: str) -> Recipe:
    """Return the recipe of ``debian-12``, … Raises NotFound for a name without one.

    It builds from the archive that ARMVM_ARCHIVE_DEBIAN names, else from mmdebstrap's own choice.
    """
    if name not in RECIPES:
        raise NotFound(
            f"there is no recipe for {shown(name)}", hint="recipes: " + ", ".join(sorted(RECIPES))
        )
    return replace(RECIPES[name], mirror=os.environ.get(MIRROR_VARIABLE) or None)


def recipe_digest(source: ImageSource) -> str | None:
    """Return the digest of the recipe that a local image must have been built by.

    None for images from elsewhere. Raises NotFound for a local name without a recipe.
    """
    if not source.location.startswith(LOCAL):
        return None
    return recipe(source.location.removeprefix(LOCAL)).digest


def builder(cache: Cache, progress: Progress) -> Callable[[str], Path]:
    """Return what builds a local image by name into *cache*; obtain() calls it."""

    def build(name: str) -> Path:
        return _build_into(cache, name, recipe(name), progress)

    return build


def build_local(
    name: str, *, output: Path | None, force: bool, mirror: str | None, progress: Progress
) -> tuple[Path, float]:
    """Build an image into the cache, or into the file *output*.

    Returns where it is, and how long it took in seconds: 0 when the cache had it. Raises
    BuildFailed, MissingCapability, StorageError, Conflict when *output* exists and *force* is
    not given.
    """
    wanted, start = recipe(name), time.monotonic()
    if mirror is not None:
        wanted = replace(wanted, mirror=mirror)
    if output is not None:
        if output.exists() and not force:
            raise Conflict(f"{output} exists already", hint="--force overwrites it")
        build_image(wanted, output, progress=progress)
        return output, time.monotonic() - start
    cache = Cache.default()
    wait = f"another armvm is building {name}: waiting for it"
    with cache.lock(f"{LOCAL}{name}", on_wait=lambda: progress.say(wait)):
        entry = None if force else cache.find_local(name, wanted.digest)
        if entry is not None:
            return entry.path, 0.0
        path = _build_into(cache, name, wanted, progress)
    return path, time.monotonic() - start


def _build_into(cache: Cache, name: str, wanted: Recipe, progress: Progress) -> Path:
    """Build into the cache; the caller holds its lock for this image."""
    with cache.partial(f"{LOCAL}{name}") as partial:
        build_image(wanted, partial, progress=progress)
        entry = cache.store_local(partial, name=name, recipe=wanted.digest, system=wanted.system)
        return entry.path
