"""``rootfs create``: create a distribution's root file system in a directory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.errors import ConfigError
from armvm.base.progress import Progress
from armvm.base.result import Doc, Seconds
from armvm.provision.image import local, recipe, workspace
from armvm.provision.image.recipe import Recipe
from armvm.provision.rootfs import place as places
from armvm.settings.names import shown
from armvm.settings.user_path import absolute
from armvm.usermode.rootfs import bootstrap, build, enter, requirements
from armvm.usermode.rootfs.bootstrap import Arch, Tool, Variant
from armvm.usermode.rootfs.build import Mode

#: Free space required, in bytes: for a plain root file system, and for a bootable one.
SPACE, SPACE_BOOTABLE = 1 << 30, 3 << 30


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A requested root file system: its recipe, architecture and additional packages."""

    recipe: Recipe
    arch: Arch = Arch.ARM64
    variant: Variant = Variant.MINBASE
    bootable: bool = False
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RootFileSystem:
    """The root file system that was created."""

    path: Annotated[Path, Doc("Absolute path of the directory.", pattern="^/")]
    distro: Annotated[str, Doc("The distribution.", enum=["debian", "ubuntu"])]
    version: Annotated[str, Doc("The distribution's version, such as 12 or 24.04.")]
    arch: Annotated[Arch, Doc("The architecture of its programs, by Debian's name.")]
    variant: Annotated[
        Variant | None,
        Doc("Its set of packages; null: bootable, with the packages of `armvm image build`."),
    ]
    bootable: Annotated[bool, Doc("Whether `armvm rootfs to-image` can make an image of it.")]
    packages: Annotated[
        list[str], Doc("The requested packages beyond those of the variant, sorted.")
    ]
    owner: Annotated[
        int,
        Doc(
            "The host's user id of its root: 0, or the first of the user's in /etc/subuid.",
            minimum=0,
        ),
    ]
    seconds: Annotated[Seconds, Doc("How long it took.")]


@dataclass(frozen=True, kw_only=True)
class Created:
    """A created root file system: its path, the request, and the owner of its files.

    ``owner`` is the host's user id of its root: 0, or the first of the user's in /etc/subuid.
    """

    path: Path
    wanted: Wanted
    owner: int
    seconds: float

    def described(self) -> RootFileSystem:
        """Return it as ``rootfs create`` reports it."""
        asked = self.wanted
        return RootFileSystem(
            path=self.path,
            distro=asked.recipe.distro,
            version=asked.recipe.version,
            arch=asked.arch,
            variant=None if asked.bootable else asked.variant,
            bootable=asked.bootable,
            packages=list(asked.packages),
            owner=self.owner,
            seconds=round(self.seconds, 1),
        )


def wanted(
    image: str,
    *,
    arch: str = "arm64",
    variant: str | None = None,
    packages: tuple[str, ...] = (),
    mirror: str | None = None,
    bootable: bool = False,
) -> Wanted:
    """Return the request in command-line options. Raises ConfigError, NotFound."""
    try:
        chosen = Arch(arch)
    except ValueError:
        raise ConfigError(
            f"unsupported architecture {shown(arch)}", hint="use --arch arm64 or --arch armhf"
        ) from None
    try:
        kind = Variant(variant or Variant.MINBASE.value)
    except ValueError:
        known = ", ".join(one.value for one in Variant)
        raise ConfigError(
            f"unknown variant {shown(variant or '')}", hint=f"known: {known}"
        ) from None
    if bootable and chosen is not Arch.ARM64:
        raise ConfigError(
            "--bootable requires arm64: armvm's machines do not run 32-bit ARM systems",
            hint="omit --bootable; 'armvm rootfs enter' runs armhf programs",
        )
    if bootable and variant is not None:
        raise ConfigError(
            "--bootable and --variant cannot be used together",
            hint="--bootable installs the packages of 'armvm image build'; add more with --package",
        )
    made = recipe.made(image, packages=packages, mirror=mirror)
    # A recipe leaves out what every image has. Without --bootable that is not installed.
    extra = made.extra if bootable else tuple(sorted({*made.extra, *packages}))
    return Wanted(
        recipe=local.with_archive(made),
        arch=chosen,
        variant=kind,
        bootable=bootable,
        packages=extra,
    )


def create(
    directory: Path,
    asked: Wanted,
    *,
    keyring: Path | None = None,
    progress: Progress,
    mode: Mode | None = None,
) -> Created:
    """Create a root file system in *directory*, which must be empty or not exist.

    *keyring* has the keys that must have signed the package archive; the default is the
    distribution's. For an ordinary user armvm works in a user namespace, and the files belong to
    the ids in /etc/subuid. Raises Conflict for a directory that is not empty, MissingCapability
    if this host lacks a requirement, PermissionDenied, StorageError, NotFound for a package,
    BuildFailed. On failure or Ctrl-C nothing is left behind; the next run removes what a killed
    process leaves.
    """
    start = time.monotonic()
    mode = mode or Mode.here()
    target = places.free_place(directory, mode)
    making = asked.recipe.making
    if keyring is not None:
        keyring = absolute(keyring)
    title = f"{making.title} {asked.recipe.version} for {asked.arch.value}"
    with progress.task(f"creating a root file system of {title}") as task:
        task.update(text="preparing")
        tool = _check(asked, target.parent, mode, keyring)
        workspace.check_space(target.parent, SPACE_BOOTABLE if asked.bootable else SPACE)
        with (
            places.partial(target, mode) as partial,
            # An interrupted mmdebstrap leaves files in its TMPDIR.
            workspace.workspace(workspace.SHARED, mode, needed=1 << 20) as work,
        ):
            keys = None if keyring is None else workspace.lent(keyring, work)
            if asked.bootable:
                build.make(
                    partial,
                    distro=making,
                    suite=asked.recipe.suite,
                    packages=asked.recipe.packages,
                    mirror=asked.recipe.mirror,
                    keyring=keys,
                    mode=mode,
                    temporary=work,
                    on_phase=lambda text: task.update(text=text),
                    on_size=lambda size: workspace.check_space(target.parent, 2 * size),
                )
            else:
                order = bootstrap.Order(
                    distro=making,
                    suite=asked.recipe.suite,
                    arch=asked.arch,
                    variant=asked.variant,
                    packages=asked.packages,
                    mirror=asked.recipe.mirror,
                    keyring=keys,
                    mode=mode,
                    tool=tool,
                )
                bootstrap.make(
                    partial, order, temporary=work, on_phase=lambda text: task.update(text=text)
                )
            owner = partial.stat().st_uid
            places.into_place(partial, target)
    seconds = time.monotonic() - start
    return Created(path=target, wanted=asked, owner=owner, seconds=seconds)


def _check(asked: Wanted, parent: Path, mode: Mode, keyring: Path | None) -> Tool:
    """Check the requirements before any change; return the tool to use."""
    making = asked.recipe.making
    if asked.bootable:
        requirements.check(mode, making, parent, keyring=keyring)
        return Tool.MMDEBSTRAP
    tool = Tool.here(mode)
    own = ("mmdebstrap", "apt-get", "dpkg") if tool is Tool.MMDEBSTRAP else ("debootstrap",)
    requirements.check_tools((*own, "gpgv"), mode)
    requirements.check_keyring(making, keyring)
    enter.ensure_runs(asked.arch.qemu)
    requirements.check_place(mode, parent)
    return tool
