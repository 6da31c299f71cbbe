"""``emulate``: one foreign program now, with libraries from a sysroot where it needs some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from armvm.base import process
from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.provision.rootfs import sysroot as sysroots
from armvm.settings.names import shown
from armvm.settings.user_path import given_path
from armvm.usermode.programs import emulate as emulating
from armvm.usermode.programs.emulate import Program
from armvm.usermode.rootfs import enter, tree

#: Where a program named without a directory is looked for in a sysroot.
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
    """Run the program *name* under QEMU's user mode, and return its exit code.

    It is a file here, or else one in *sysroot*, the root file system with its libraries; *image*
    names a distribution whose libraries are fetched once, and kept. Raises NotFound, ConfigError,
    MissingCapability without QEMU or the program's loader, and what sysroots.obtain() raises.
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
    """Return the program that is a file of that name on this host; None where there is none."""
    path = given_path(name, "program")
    try:
        there = path.exists()
    except (OSError, ValueError):  # too long a name, or one with a NUL
        there = False
    return emulating.look(path.absolute()) if there else None


def _within(sysroot: Path | None, name: str) -> Path:
    """Return where a program is in *sysroot*. Raises NotFound."""
    if sysroot is None:
        raise NotFound(
            f"there is no program {shown(name)}",
            hint="name its path, or with --sysroot or --image a program that is in there",
        )
    candidates = [name] if "/" in name else [f"{where}/{name}" for where in BINS]
    for candidate in candidates:
        found = tree.find(sysroot, candidate)
        if found is not None and found.is_file():
            return found
    raise NotFound(
        f"there is no program {shown(name)}, neither here nor in {sysroot}", hint="name its path"
    )


def _has(root: Path, name: str) -> bool:
    return tree.find(root, name) is not None
