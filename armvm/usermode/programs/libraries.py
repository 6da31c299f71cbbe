"""Find a program's loader and libraries, as QEMU and the loader would.

QEMU looks a path up below its prefix first (``-L``, QEMU_LD_PREFIX; built in: /etc/qemu-binfmt/ARCH
in Debian, /usr/gnemul/qemu-ARCH upstream), then as given. The loader, run inside QEMU, looks for
libraries the same way: in the program's own directories, then in the default ones (ld.so(8)).
Libraries of Debian's cross packages, under /usr/TRIPLET, are found only if that is the prefix.
Only the program's direct dependencies are checked, not those of its libraries, and
/etc/ld.so.cache is not read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.usermode.architectures import Architecture

#: Default directories of every loader; the first two also with a triplet.
USUAL = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib32", "/usr/lib32", "/usr/local/lib")
_CONFIGURED = "/etc/qemu-binfmt", "/usr/gnemul"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file that a program needs: *path* is where it was found, *elsewhere* where it could be.

    *elsewhere* is a directory that would have to become the prefix.
    """

    name: str
    path: str | None
    elsewhere: str | None = None


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where to search: *prefixes* in order (the last is ""), *possible* are other prefixes."""

    prefixes: tuple[str, ...]
    triplets: tuple[str, ...]
    possible: tuple[str, ...] = ()


def places(
    architecture: Architecture | None,
    program: Path,
    *,
    sysroot: str | None,
    triplets: Sequence[str] = (),
) -> Places:
    """Return where to search for a program of an architecture; None: this host's own.

    Parent directories of the program are possible prefixes too: it may be in its own root.
    """
    if architecture is None:
        return Places(prefixes=(sysroot or "",), triplets=tuple(triplets))
    if sysroot:
        prefixes: tuple[str, ...] = (sysroot.rstrip("/") or "/",)
    else:
        debian, upstream = _CONFIGURED
        prefixes = (f"{debian}/{architecture.name}", f"{upstream}/qemu-{architecture.name}")
    return Places(
        prefixes=(*prefixes, ""),
        triplets=architecture.triplets,
        possible=(
            *(str(one) for one in program.absolute().parents if one != Path("/")),
            *(f"/usr/{triplet}" for triplet in architecture.triplets),
        ),
    )


def find_loader(loader: str, at: Places, header: bytes) -> Wanted:
    """Find a loader (PT_INTERP) whose file has the class and machine of *header*."""
    return _find(loader, [loader], at, header)


def find_library(
    name: str, runpath: Sequence[str], program: Path, at: Places, header: bytes
) -> Wanted:
    """Find a library (DT_NEEDED), as the loader would."""
    if "/" in name:
        return _find(name, [name], at, header)
    origin = os.path.dirname(os.path.realpath(program))  # noqa: PTH120
    own = [
        part.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
        for part in runpath
        if part.startswith(("/", "$ORIGIN", "${ORIGIN}"))
    ]
    usual = [f"{base}/{triplet}" for base in USUAL[:2] for triplet in at.triplets]
    return _find(name, [f"{base}/{name}" for base in (*own, *usual, *USUAL)], at, header)


def _find(name: str, paths: Sequence[str], at: Places, header: bytes) -> Wanted:
    for prefix in at.prefixes:
        for path in paths:
            if _alike(prefix + path, header):
                return Wanted(name=name, path=prefix + path)
    for prefix in at.possible:
        if any(_alike(prefix + path, header) for path in paths):
            return Wanted(name=name, path=None, elsewhere=prefix)
    return Wanted(name=name, path=None)


def _alike(path: str, header: bytes) -> bool:
    """Return whether a file is ELF of the same class, byte order and machine."""
    try:
        if not os.path.isfile(path):  # noqa: PTH113 - a hostile path can hold NUL
            return False
        with open(path, "rb") as file:  # noqa: PTH123
            found = file.read(20)
    except (OSError, ValueError):
        return False
    return found[:6] == header[:6] and found[18:20] == header[18:20]
