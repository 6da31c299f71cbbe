"""Where a root file system is made: beside its place, into which it comes whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from armvm.base.errors import (
    ArmvmError,
    ConfigError,
    Conflict,
    NotFound,
    PermissionDenied,
    StorageError,
)
from armvm.usermode.rootfs import build
from armvm.usermode.rootfs.build import Mode

#: How the name of a directory ends that is being made; what a killed run left is found by it.
SUFFIX = ".armvm-partial"


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
            hint=f"mkdir {shlex.quote(f'{parent}/{_user()}')}, and make it in there",
        )
    for one in (parent, *parent.parents):
        if not one.stat().st_mode & 0o001:
            raise PermissionDenied(
                f"{one} is closed to others, and so to the ids that /etc/subuid lends you",
                hint=f"chmod o+x {shlex.quote(str(one))}, "
                f"or make it elsewhere: mkdir /var/tmp/{_user()}",
            )


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


@contextlib.contextmanager
def partial(target: Path, mode: Mode) -> Iterator[Path]:
    """Yield a path beside *target* to make it at; what is still there in the end is removed."""
    stem = target.name[:150]
    for stale in target.parent.glob(f".*{SUFFIX}"):
        left = re.match(rf"\.{re.escape(stem)}\.([0-9]{{1,9}}){re.escape(SUFFIX)}\Z", stale.name)
        if left and not Path(f"/proc/{left[1]}").exists():
            with contextlib.suppress(OSError, ArmvmError):
                build.remove(stale, mode=mode)
    path = target.parent / f".{stem}.{os.getpid()}{SUFFIX}"
    try:
        path.mkdir(mode=0o755)  # new: nobody has put a link there
    except OSError as error:
        raise StorageError(
            f"{path} cannot be made: {error.strerror}", hint="choose another directory"
        ) from error
    try:
        yield path
    finally:
        if path.exists():
            build.remove(path, mode=mode)


def into_place(partial: Path, target: Path) -> None:
    """Give what was made its name, over an empty directory too. Raises StorageError."""
    try:
        partial.rename(target)
    except OSError as error:
        raise StorageError(
            f"{target} cannot be put in place: {error.strerror}",
            hint="something has come to be there meanwhile; name another directory",
        ) from error
