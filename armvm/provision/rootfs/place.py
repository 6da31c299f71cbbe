"""Builds a root file system beside its target path, and renames it when it is complete."""

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
from armvm.settings.user_path import absolute
from armvm.usermode.rootfs import build
from armvm.usermode.rootfs.build import Mode

#: Suffix of directories under construction. It finds those that killed runs left behind.
SUFFIX = ".armvm-partial"


def removal(path: Path) -> str:
    """Return a message with the command by which an ordinary user removes a root file system."""
    name = shlex.quote(str(path))
    return (
        f"to remove it: mmdebstrap --unshare-helper find {name} -mindepth 1 -delete; rmdir {name}"
    )


def free_place(directory: Path, mode: Mode) -> Path:
    """Return the real path of *directory*, if a root file system can be created there.

    Raises Conflict if the path is in use, NotFound if its parent does not exist, and
    PermissionDenied if this user cannot create it or could not remove it again.
    """
    place = absolute(directory)
    if os.path.lexists(place):
        if place.is_symlink() or not place.is_dir():
            raise Conflict(
                f"{place} already exists and is not a directory", hint="choose another path"
            )
        if place.is_mount():
            raise Conflict(f"{place} is a mount point", hint="choose a directory below it")
        try:
            if any(place.iterdir()):
                raise Conflict(f"{place} is not empty", hint="choose another one, or remove it")
        except PermissionError as error:
            raise PermissionDenied(
                f"permission denied: cannot read {place}",
                hint="choose a directory that you can read and write to",
            ) from error
    parent = place.parent.resolve()
    if place.name in ("", ".."):
        raise ConfigError(
            f"invalid directory '{directory}'", hint="give the path of a new or empty directory"
        )
    if not parent.is_dir():
        raise NotFound(f"directory {place.parent} not found", hint="create it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionDenied(
            f"permission denied: cannot write {parent}",
            hint="choose a directory that you can write to",
        )
    if mode is Mode.UNSHARE:
        _check_open(parent)
    return parent / place.name


def _check_open(parent: Path) -> None:
    """Raise PermissionDenied if a namespace's ids cannot enter, or the user cannot remove files."""
    if parent.stat().st_uid != os.geteuid():
        raise PermissionDenied(
            f"{parent} belongs to another user: you could not remove the root file system later",
            hint=f"use a directory of your own: mkdir {shlex.quote(f'{parent}/{_user()}')}",
        )
    for one in (parent, *parent.parents):
        if not one.stat().st_mode & 0o001:
            raise PermissionDenied(
                f"other users cannot enter {one}, nor can your subordinate ids (/etc/subuid)",
                hint=f"chmod o+x {shlex.quote(str(one))}, "
                f"or use another directory: mkdir /var/tmp/{_user()}",
            )


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


@contextlib.contextmanager
def partial(target: Path, mode: Mode) -> Iterator[Path]:
    """Yield a new directory beside *target* to build in; remove it at exit if it still exists."""
    stem = target.name[:150]
    for stale in target.parent.glob(f".*{SUFFIX}"):
        left = re.match(rf"\.{re.escape(stem)}\.([0-9]{{1,9}}){re.escape(SUFFIX)}\Z", stale.name)
        if left and not Path(f"/proc/{left[1]}").exists():
            with contextlib.suppress(OSError, ArmvmError):
                build.remove(stale, mode=mode)
    path = target.parent / f".{stem}.{os.getpid()}{SUFFIX}"
    try:
        path.mkdir(mode=0o755)  # fails if the path exists, also as a link
    except OSError as error:
        raise StorageError(
            f"cannot create {path}: {error.strerror}", hint="choose another directory"
        ) from error
    try:
        yield path
    finally:
        if path.exists():
            build.remove(path, mode=mode)


def into_place(partial: Path, target: Path) -> None:
    """Rename the finished directory to *target*, which may be an empty one. Raises StorageError."""
    try:
        partial.rename(target)
    except OSError as error:
        raise StorageError(
            f"cannot rename the root file system to {target}: {error.strerror}",
            hint="another program may have written there; choose another directory",
        ) from error
