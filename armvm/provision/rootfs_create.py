"""``rootfs create``: a distribution's root file system in a directory, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from armvm.errors import ArmvmError, ConfigError, Conflict, NotFound, PermissionDenied, StorageError
from armvm.progress import Progress
from armvm.provision import local_images, recipe, workspace
from armvm.provision.recipe import Recipe
from armvm.spec.names import shown
from armvm.usermode import bootstrap, enter, requirements, rootfs
from armvm.usermode.bootstrap import Arch, Tool, Variant
from armvm.usermode.rootfs import Mode

#: Bytes that must be free: for a plain one with a few packages, and for one that can boot.
SPACE, SPACE_BOOTABLE = 1 << 30, 3 << 30

#: How the name of a directory ends that is being made; what a killed run left is found by it.
SUFFIX = ".armvm-partial"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A root file system to make: whose recipe (with *extra* packages), for which processor."""

    recipe: Recipe
    arch: Arch = Arch.ARM64
    variant: Variant = Variant.MINBASE
    bootable: bool = False


@dataclass(frozen=True, kw_only=True)
class Created:
    """A root file system that was made: where, of what, and whose its files are.

    ``owner`` is the host's id of its root: 0, or the first that /etc/subuid lends the user.
    """

    path: Path
    wanted: Wanted
    owner: int
    seconds: float


def wanted(
    image: str,
    *,
    arch: str = "arm64",
    variant: str | None = None,
    packages: tuple[str, ...] = (),
    mirror: str | None = None,
    bootable: bool = False,
) -> Wanted:
    """Return what the command line asks for. Raises ConfigError, NotFound."""
    try:
        chosen = Arch(arch)
    except ValueError:
        raise ConfigError(
            f"{shown(arch)} is no architecture for this", hint="--arch arm64 or --arch armhf"
        ) from None
    try:
        kind = Variant(variant or Variant.MINBASE.value)
    except ValueError:
        known = ", ".join(one.value for one in Variant)
        raise ConfigError(f"{shown(variant or '')} is no variant", hint=f"one of {known}") from None
    if bootable and chosen is not Arch.ARM64:
        raise ConfigError(
            "only arm64 can be booted: armvm's machines have no 32-bit ARM processor",
            hint="leave out --bootable: programs for armhf run by 'rootfs enter'",
        )
    if bootable and variant is not None:
        raise ConfigError(
            "--bootable has the packages of 'image build', and takes no --variant",
            hint="--package NAME adds more",
        )
    made = recipe.made(image, packages=packages, mirror=mirror)
    return Wanted(
        recipe=local_images.with_archive(made), arch=chosen, variant=kind, bootable=bootable
    )


def create(
    directory: Path,
    asked: Wanted,
    *,
    keyring: Path | None = None,
    progress: Progress,
    mode: Mode | None = None,
) -> Created:
    """Make a root file system in *directory*, which must be empty or not there.

    *keyring* must vouch for the package archive, the distribution's own by default. An ordinary
    user's is made in a user namespace, and its files belong to the ids of /etc/subuid. Raises
    Conflict for a directory with something in it, MissingCapability when this host cannot,
    PermissionDenied, StorageError, NotFound for a package, BuildFailed. A failure, Ctrl-C too,
    leaves nothing behind; what a kill leaves, the next run removes.
    """
    start = time.monotonic()
    mode = mode or Mode.here()
    target = free_place(directory, mode)
    making = asked.recipe.making
    if keyring is not None:
        keyring = keyring.expanduser().absolute()
    title = f"{making.title} {asked.recipe.version} for {asked.arch.value}"
    with progress.task(f"making a root file system of {title}") as task:
        task.update(text="preparing")
        tool = _check(asked, target.parent, mode, keyring)
        workspace.check_space(target.parent, SPACE_BOOTABLE if asked.bootable else SPACE)
        with (
            _partial(target, mode) as partial,
            # mmdebstrap that is interrupted leaves files in its TMPDIR.
            workspace.workspace(workspace.SHARED, mode, needed=1 << 20) as work,
        ):
            keys = None if keyring is None else workspace.lent(keyring, work)
            if asked.bootable:
                rootfs.make(
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
                bootstrap.make(
                    partial,
                    distro=making,
                    suite=asked.recipe.suite,
                    arch=asked.arch,
                    variant=asked.variant,
                    packages=asked.recipe.extra,
                    mirror=asked.recipe.mirror,
                    keyring=keys,
                    mode=mode,
                    tool=tool,
                    temporary=work,
                    on_phase=lambda text: task.update(text=text),
                )
            owner = partial.stat().st_uid
            _into_place(partial, target)
    seconds = time.monotonic() - start
    return Created(path=target, wanted=asked, owner=owner, seconds=seconds)


def removal(path: Path) -> str:
    """Return how an ordinary user removes a root file system again, in words."""
    name = shlex.quote(str(path))
    return (
        f"to remove it: mmdebstrap --unshare-helper find {name} -mindepth 1 -delete; rmdir {name}"
    )


def free_place(directory: Path, mode: Mode) -> Path:
    """Return the real path at which a root file system can be made.

    Raises Conflict when something is there, NotFound without a directory around it, and
    PermissionDenied where this user could not make it, or not remove it again.
    """
    place = directory.expanduser().absolute()
    if os.path.lexists(place):
        if place.is_symlink() or not place.is_dir():
            raise Conflict(f"{place} exists, and is no directory", hint="name another one")
        if place.is_mount():
            raise Conflict(f"{place} is where something is mounted", hint="name one below it")
        try:
            if any(place.iterdir()):
                raise Conflict(f"{place} is not empty", hint="name another one, or remove it")
        except PermissionError as error:
            raise PermissionDenied(
                f"{place} cannot be looked at", hint="name a directory of your own"
            ) from error
    parent = place.parent.resolve()
    if place.name in ("", ".."):
        raise ConfigError(f"{directory} is no name for a directory", hint="name one to be made")
    if not parent.is_dir():
        raise NotFound(f"there is no directory {place.parent}", hint="make it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionDenied(f"cannot write to {parent}", hint="choose a directory of your own")
    if mode is Mode.UNSHARE:
        _check_open(parent)
    return parent / place.name


def _check_open(parent: Path) -> None:
    """Raise PermissionDenied where the ids of a user namespace cannot go, or files would stay."""
    if parent.stat().st_uid != os.geteuid():
        raise PermissionDenied(
            f"{parent} is not yours: you could not remove what is made there",
            hint=f"mkdir {parent}/{_user()}, and make it in there",
        )
    for one in (parent, *parent.parents):
        if not one.stat().st_mode & 0o001:
            raise PermissionDenied(
                f"{one} is closed to others, and so to the ids that /etc/subuid lends you",
                hint=f"chmod o+x {one}, or make it elsewhere: mkdir /var/tmp/{_user()}",
            )


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _check(asked: Wanted, parent: Path, mode: Mode, keyring: Path | None) -> Tool:
    """Raise what makes it impossible, before anything is done; return the tool to use."""
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


@contextlib.contextmanager
def _partial(target: Path, mode: Mode) -> Iterator[Path]:
    """Yield a path beside *target* to make it at; what is still there in the end is removed."""
    stem = target.name[:150]
    for stale in target.parent.iterdir():
        left = re.match(rf"\.{re.escape(stem)}\.([0-9]{{1,9}}){re.escape(SUFFIX)}\Z", stale.name)
        if left and not Path(f"/proc/{left[1]}").exists():
            with contextlib.suppress(OSError, ArmvmError):
                rootfs.remove(stale, mode=mode)
    partial = target.parent / f".{stem}.{os.getpid()}{SUFFIX}"
    try:
        partial.mkdir(mode=0o755)  # new: nobody has put a link there
    except OSError as error:
        raise StorageError(
            f"{partial} cannot be made: {error.strerror}", hint="choose another directory"
        ) from error
    try:
        yield partial
    finally:
        if partial.exists():
            rootfs.remove(partial, mode=mode)


def _into_place(partial: Path, target: Path) -> None:
    """Give what was made its name, over an empty directory too. Raises StorageError."""
    try:
        partial.rename(target)
    except OSError as error:
        raise StorageError(
            f"{target} cannot be put in place: {error.strerror}",
            hint="something has come to be there meanwhile; name another directory",
        ) from error
