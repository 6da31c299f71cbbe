"""A recipe: what image to build, its name on the command line, and its digest.

The name spells out the recipe. ``debian-13`` is the plain one. Every other choice is part of the
name, always in the same order, so that a name never means two images::

    debian-13[-generic][-SIZE][+PACKAGE]…        debian-13-generic-8g+docker.io+git
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace

from armvm.base.errors import NotFound
from armvm.images import disk
from armvm.provision.image.recipe_input import (
    MAX_SIZE,
    MIN_SIZE,
    PACKAGE,
    USUAL_SIZE,
    check_kernel,
    check_mirror,
    check_package,
    parse_image_size,
)
from armvm.settings.names import shown
from armvm.settings.size import GIB, parse_size, size_label
from armvm.settings.system import CODENAMES, OperatingSystem
from armvm.usermode.rootfs import build
from armvm.usermode.rootfs.distros import DISTROS, Distro, Kernel

#: Increase this if a recipe must give a different image although none of its texts changed.
FORMAT = 1

#: The versions of each distribution that armvm can build.
VERSIONS = {"debian": ("12", "13"), "ubuntu": ("24.04",)}

#: Maximum length of an image's name in the cache, in characters.
MAX_NAME = 63

_NAME = re.compile(
    r"(?P<distro>[a-z]+)-(?P<version>[0-9.]+)(?P<kernel>-generic)?(?:-(?P<size>[0-9]{1,9}[mgt]))?"
    r"(?P<packages>(?:\+[a-z0-9][a-z0-9.-]*)*)\Z"
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build: a *distro*'s *version*, its *kernel*, *extra* packages, a disk's *size*.

    *extra* has the packages, sorted, beyond those of every image. *size* is in bytes. *mirror* is
    the URL of a package archive, or None for the default. made() validates user input.
    """

    distro: str = "debian"
    version: str = "12"
    kernel: Kernel = Kernel.CLOUD
    extra: tuple[str, ...] = ()
    size: int = USUAL_SIZE
    mirror: str | None = None

    @property
    def making(self) -> Distro:
        """The build settings of the distribution."""
        return DISTROS[self.distro]

    @property
    def packages(self) -> tuple[str, ...]:
        """All packages to install; apt adds their dependencies."""
        return (self.making.kernels[self.kernel], *self.making.packages, *self.extra)

    @property
    def suite(self) -> str:
        """The codename of the version: ``bookworm``."""
        names = {version: name for name, version in CODENAMES[self.distro].items()}
        return names[self.version]

    @property
    def plain(self) -> str:
        """The name of the recipe without additional choices: ``debian-12``."""
        return f"{self.distro}-{self.version}"

    @property
    def name(self) -> str | None:
        """The name of this recipe; None if it would be too long or ambiguous."""
        words = [self.plain]
        words += ["generic"] if self.kernel is Kernel.GENERIC else []
        words += [size_label(self.size).lower()] if self.size != USUAL_SIZE else []
        name = "+".join(["-".join(words), *self.extra])
        plus = any("+" in package for package in self.extra)
        return None if plus or len(name) > MAX_NAME else name

    @property
    def title(self) -> str:
        """The name of the image in messages."""
        return f"local:{self.name or self.plain + '+…'}"

    @property
    def system(self) -> OperatingSystem:
        """The operating system of the image."""
        return OperatingSystem(distro=self.distro, version=self.version)

    @property
    def digest(self) -> str:
        """The sha256 (64 hex digits) of everything that determines the image, except the archive.

        Two builds with the same digest differ only in what the distribution published in between.
        """
        own = {} if self.distro == "debian" else {"distro": self.distro}
        content = {
            "format": FORMAT,
            "recipe": {
                **own,
                "version": self.version,
                "packages": self.packages,
                "size": self.size,
                "mirror": None,  # the same packages from elsewhere
            },
            "scripts": build.scripts(self.making.scripts),
            "disk": disk.description(disk.BOOT_FILES[self.distro]),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


#: The recipes without additional choices.
PLAIN = {
    f"{distro}-{version}": Recipe(distro=distro, version=version)
    for distro, versions in VERSIONS.items()
    for version in versions
}


def made(
    name: str,
    *,
    packages: tuple[str, ...] = (),
    kernel: str | None = None,
    size: str | None = None,
    mirror: str | None = None,
) -> Recipe:
    """Return the recipe that the command line describes.

    *name* is a recipe's name (``debian-13``, ``local:debian-13``) or a reference such as
    ``debian:13`` or ``ubuntu:noble``. The other arguments modify that recipe. Raises ConfigError
    for invalid arguments, NotFound for a name without a recipe.
    """
    start = named(_spelled(name))
    wanted = replace(
        start,
        kernel=start.kernel if kernel is None else check_kernel(kernel),
        size=start.size if size is None else parse_image_size(size),
        mirror=None if mirror is None else check_mirror(mirror),
    )
    return _with_packages(wanted, {*start.extra, *map(check_package, packages)})


def named(name: str) -> Recipe:
    """Return the recipe with the name *name*. Raises NotFound, and suggests the canonical name."""
    found = read(name)
    if found is None or found.plain not in PLAIN:
        raise NotFound(
            f"recipe {shown(name)} not found", hint="known recipes: " + ", ".join(sorted(PLAIN))
        )
    if found.name != name:
        raise NotFound(
            f"recipe {shown(name)} not found",
            hint=f"use its canonical name: {found.name}"
            if found.name
            else f"use fewer packages: a name has at most {MAX_NAME} characters",
        )
    return found


def is_reserved(name: str) -> bool:
    """Return whether *name* belongs to a recipe, so that no other image may have it."""
    found = read(name)
    return found is not None and found.plain in PLAIN


def read(name: str) -> Recipe | None:
    """Return the recipe that a name in the form above describes; None for any other name."""
    match = _NAME.match(name)
    if match is None or match["distro"] not in VERSIONS:
        return None
    packages = match["packages"].split("+")[1:]
    size = parse_size(match["size"], what="an image", plain_unit=GIB) if match["size"] else None
    if not all(PACKAGE.match(package) for package in packages):
        return None
    if size is not None and not MIN_SIZE <= size <= MAX_SIZE:
        return None
    bare = Recipe(
        distro=match["distro"],
        version=match["version"],
        kernel=Kernel.GENERIC if match["kernel"] else Kernel.CLOUD,
        size=size or USUAL_SIZE,
    )
    return _with_packages(bare, set(packages))


def _with_packages(bare: Recipe, packages: set[str]) -> Recipe:
    """Return a recipe with *packages* added, sorted and without those that it already has."""
    without = replace(bare, extra=())
    return replace(without, extra=tuple(sorted(packages - {*without.packages})))


def _spelled(name: str) -> str:
    """Return a recipe's name for user input such as ``debian:13`` or ``ubuntu:noble``."""
    distro, colon, release = name.removeprefix("local:").partition(":")
    if not colon:
        return distro
    return f"{distro}-{CODENAMES.get(distro, {}).get(release, release)}"
