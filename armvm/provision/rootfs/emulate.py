"""``emulate``: runs a program for another architecture, with libraries from a sysroot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from armvm.base import process
from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.provision.rootfs import sysroot as sysroots
from armvm.settings.names import shown
from armvm.settings.user_path import absolute, given_path
from armvm.usermode.programs import emulate as emulating
from armvm.usermode.programs.emulate import Program
from armvm.usermode.rootfs import enter, tree

#: Directories in a sysroot to search for a program that is given without a path.
BINS = ("usr/local/bin", "usr/bin", "bin", "usr/local/sbin", "usr/sbin", "sbin")


def emulate(
    name: str,
    arguments: Sequence[str],
    *,
    sysroot: Path | None = None,
    image: str | None = None,
    cpu: str | None = None,
    progress: Progress,
) -> int:
    """Run the program *name* in QEMU user mode, and return its exit code.

    It is a file on this host, or else in *sysroot*, the root file system with its libraries.
    *image* names a distribution whose libraries are downloaded once. Raises NotFound, ConfigError,
    MissingCapability without QEMU or the program's loader, and the errors of sysroots.obtain().
    """
    where = enter.check_root(sysroot) if sysroot is not None else None
    program = _here(name)
    if image is not None and (program is None or program.loader is not None):
        where = sysroots.obtain(image, program.architecture if program else "aarch64", progress)
    if program is None:
        program = emulating.look(_within(where, name))
    argv = emulating.command(program, arguments, name=name, sysroot=where, cpu=cpu, has=_has)
    return process.passthrough(argv)


def _here(name: str) -> Program | None:
    """Return the program in the file *name* on this host; None if the file does not exist."""
    path = given_path(name, "program")
    try:
        there = path.exists()
    except (OSError, ValueError):  # the name is too long or contains a NUL
        there = False
    return emulating.look(absolute(path)) if there else None


def _within(sysroot: Path | None, name: str) -> Path:
    """Return the path of a program in *sysroot*. Raises NotFound."""
    if sysroot is None:
        raise NotFound(
            f"program {shown(name)} not found",
            hint="give its path; or use --sysroot or --image to run a program from there",
        )
    candidates = [name] if "/" in name else [f"{where}/{name}" for where in BINS]
    for candidate in candidates:
        found = tree.find(sysroot, candidate)
        if found is not None and found.is_file():
            return found
    raise NotFound(
        f"program {shown(name)} not found on this host or in {sysroot}", hint="give its path"
    )


def _has(root: Path, name: str) -> bool:
    return tree.find(root, name) is not None
