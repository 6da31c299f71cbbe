"""Images built on this host: the cache keeps one for each recipe, or under the user's name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base.errors import ConfigError, Conflict, UsageError
from armvm.base.progress import Progress
from armvm.base.result import Doc, Seconds
from armvm.images.cache.entry import Entry
from armvm.images.cache.importing import export_file
from armvm.images.cache.named import keep_only
from armvm.images.cache.store import Cache
from armvm.images.model import FromImage
from armvm.images.obtain import LOCAL
from armvm.images.reference import parse
from armvm.provision.image import recipe as recipes
from armvm.provision.image.build import build_image
from armvm.provision.image.recipe import Recipe
from armvm.provision.image.recipe_input import check_mirror
from armvm.provision.image.workspace import check_output
from armvm.settings.names import shown
from armvm.settings.size import GIB
from armvm.settings.user_path import absolute
from armvm.usermode.rootfs.distros import Kernel

#: Prefix of the variable that sets another package archive for builds; the distribution follows.
#: (ARMVM_MIRROR_DEBIAN sets a mirror of images.)
MIRROR_VARIABLE = "ARMVM_ARCHIVE_"


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """The image that was built, or was already cached."""

    reference: Annotated[
        str | None,
        Doc(
            "The reference to give to --image, such as local:debian-13+docker.io; null: --output "
            "wrote it to a file.",
            pattern="^local:[a-z0-9][a-z0-9.+-]{0,62}$",
        ),
    ]
    name: Annotated[str | None, Doc("The reference without local:.")]
    path: Annotated[Path, Doc("Absolute path of the qcow2 file.", pattern="^/")]
    recipe: Annotated[
        str,
        Doc(
            "sha256 of everything that determines the build except the package archive, in "
            "hexadecimal.",
            pattern="^[0-9a-f]{64}$",
        ),
    ]
    packages: Annotated[
        list[str], Doc("The requested packages beyond those of every image, sorted.")
    ]
    kernel: Annotated[Kernel, Doc("Which of the distribution's kernels is installed.")]
    size: Annotated[int, Doc("Size of the image's disk in bytes.", minimum=GIB)]
    seconds: Annotated[Seconds, Doc("How long the build took; 0: the image was cached.")]


@dataclass(frozen=True, kw_only=True)
class Built:
    """A build's file, its reference (None for a file outside the cache) and its recipe.

    ``seconds`` is how long it took; 0 if the image was cached.
    """

    path: Path
    reference: str | None
    recipe: Recipe
    seconds: float

    def described(self) -> BuiltImage:
        """Return it as ``image build`` reports it."""
        return BuiltImage(
            reference=self.reference,
            name=(self.reference or "").removeprefix(LOCAL) or None,
            path=self.path,
            recipe=self.recipe.digest,
            packages=list(self.recipe.extra),
            kernel=self.recipe.kernel,
            size=self.recipe.size,
            seconds=round(self.seconds, 1),
        )


def usual_references() -> list[str]:
    """Return the references of the recipes without added packages or options."""
    return [f"{LOCAL}{name}" for name in recipes.PLAIN]


def kernels() -> list[str]:
    """Return the kernels that an image can have."""
    return [one.value for one in Kernel]


def is_recipe(name: str) -> bool:
    """Return whether ``local:NAME`` is the name of a recipe, so that only its image may use it."""
    return recipes.is_reserved(name)


def recipe(name: str) -> Recipe:
    """Return the recipe of a name such as ``debian-12``. Raises NotFound for a name without one.

    It builds from the archive in ARMVM_ARCHIVE_DEBIAN (or _UBUNTU), by default from the
    distribution's own.
    """
    return with_archive(recipes.named(name))


def recipe_digest(source: FromImage) -> str | None:
    """Return the digest of the recipe that a local image must be built from.

    None for images that are not local. Raises NotFound for a local name without a recipe.
    """
    if not source.location.startswith(LOCAL):
        return None
    return recipe(source.location.removeprefix(LOCAL)).digest


def builder(cache: Cache, progress: Progress) -> Callable[[str], Path]:
    """Return a function that builds a local image by name into *cache*, for obtain()."""

    def build(name: str) -> Path:
        return _build_into(cache, name, recipe(name), progress).path

    return build


def build_local(
    wanted: Recipe,
    *,
    name: str | None = None,
    output: Path | None = None,
    keyring: Path | None = None,
    force: bool,
    progress: Progress,
    cache: Cache | None = None,
) -> Built:
    """Build an image into the cache, or into the file *output*.

    In the cache it gets the recipe's own name, or *name*. A cached image is not built again,
    unless with *force*, which also overwrites *output* and replaces another image called *name*.
    *keyring* has the keys that must have signed the package archive. Raises ConfigError,
    UsageError for a recipe that requires a *name*, Conflict if the name or the file already
    exists, and the errors of build_image().
    """
    start, cache = time.monotonic(), cache or Cache.default()
    wanted = with_archive(wanted)
    if keyring is not None:
        if not wanted.making.own_keyring:
            raise ConfigError(
                f"--keyring cannot be used with {wanted.making.title}",
                hint=f"install its keys: apt-get install {wanted.making.keyring_package}",
            )
        keyring = absolute(keyring)
    if output is not None:
        if name is not None:
            raise UsageError(
                "--as and --output cannot be used together",
                hint="--as stores the image in the cache, --output writes a file",
            )
        output = absolute(output)
        check_output(output, force=force)
        kept = cache.find_local(wanted.name, wanted.digest) if wanted.name and not force else None
        if kept is not None:
            export_file(kept, output)
            return Built(path=output, reference=None, recipe=wanted, seconds=0.0)
        build_image(wanted, output, progress=progress, keyring=keyring)
        return Built(path=output, reference=None, recipe=wanted, seconds=time.monotonic() - start)
    chosen = _chosen_name(wanted, name)
    reference = f"{LOCAL}{chosen}"
    wait = f"waiting for another armvm process that is building {reference}"
    with cache.lock(reference, on_wait=lambda: progress.say(wait)):
        entry = None if force else _cached(cache, chosen, wanted)
        if entry is not None:
            return Built(path=entry.path, reference=reference, recipe=wanted, seconds=0.0)
        path = _build_into(cache, chosen, wanted, progress, keyring).path
    seconds = time.monotonic() - start
    return Built(path=path, reference=reference, recipe=wanted, seconds=seconds)


def with_archive(wanted: Recipe) -> Recipe:
    """Return the recipe; without its own archive it gets the one set in the environment."""
    variable = f"{MIRROR_VARIABLE}{wanted.distro.upper()}"
    mirror = wanted.mirror or os.environ.get(variable) or None
    return replace(wanted, mirror=None if mirror is None else check_mirror(mirror))


def _chosen_name(wanted: Recipe, name: str | None) -> str:
    """Return the image's name in the cache: *name*, or the recipe's own."""
    if name is None:
        if wanted.name is None:
            raise UsageError(
                "--as NAME is required: these packages do not fit in a name",
                hint="example: armvm image build … --as tools   (creates local:tools)",
            )
        return wanted.name
    return own_name(name, wanted.name)


def own_name(name: str, recipe: str | None = None) -> str:
    """Return *name* without ``local:``, checked for use as the name of a user's image.

    The name of a recipe is only valid for that *recipe*. Raises ConfigError, Conflict.
    """
    name = name.removeprefix(LOCAL)
    parse(f"{LOCAL}{name}")
    if is_recipe(name) and name != recipe:
        raise Conflict(f"{LOCAL}{name} is the name of another recipe", hint="choose another name")
    return name


def _cached(cache: Cache, name: str, wanted: Recipe) -> Entry | None:
    """Return the image of that name and recipe, or None. Raises Conflict if the name is in use."""
    entry = cache.find_local(name, wanted.digest)
    if entry is None and not is_recipe(name) and any(e.name == name for e in cache.entries()):
        raise Conflict(
            f"{shown(LOCAL + name)} already exists: imported, or built from another recipe or by "
            "another version of armvm",
            hint="replace it with --force; existing machines keep their base",
        )
    return entry


def _build_into(
    cache: Cache, name: str, wanted: Recipe, progress: Progress, keyring: Path | None = None
) -> Entry:
    """Build into the cache; the caller holds its lock for this image."""
    with cache.partial(f"{LOCAL}{name}") as partial:
        build_image(wanted, partial, progress=progress, private=True, keyring=keyring)
        entry = cache.store_local(partial, name=name, recipe=wanted.digest, system=wanted.system)
    if not is_recipe(name):
        keep_only(cache, entry)
    return entry
