"""Find the interpreters of handlers: path, static or dynamic, version."""

from __future__ import annotations

import os
import platform
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError, MissingCapability
from armvm.usermode.architectures import Architecture, of_header
from armvm.usermode.programs import elf

#: Programs that a kernel runs without a handler: ``uname -m`` to (class, machine) of ELF.
OWN = {
    "x86_64": ((64, 62), (32, 3)),
    "aarch64": ((64, 183),),
    "armv7l": ((32, 40),),
    "riscv64": ((64, 243),),
    "ppc64le": ((64, 21),),
    "s390x": ((64, 22),),
}
#: Directories of interpreters with QEMU's own names.
BINARIES = Path("/usr/bin")
#: Debian's links; by their names QEMU knows that the handler has flag P.
DEBIAN = Path("/usr/libexec/qemu-binfmt")
#: The package of static interpreters; other packages provide it since Debian 13.
APT_PACKAGE = "qemu-user-static"
#: Time limit in seconds for an interpreter to print its version.
PATIENCE = 5.0


@dataclass(frozen=True, kw_only=True)
class Program:
    """An interpreter on this host, as it is now.

    *resolved* is its path with links resolved, *static* and *version* are None if unknown.
    *changed* is the time of the file's last change or installation (ctime), in nanoseconds since
    1970. *problem* says why it cannot run by this path. (A handler with flag F keeps the file
    that it opened, even if the path no longer exists.)
    """

    path: str
    resolved: str | None
    static: bool | None
    loader: str | None
    version: str | None
    problem: str | None
    changed: int | None = None


def look(path: str, *, version: bool = True) -> Program:
    """Return the properties of the interpreter at *path*; its *version* by running it.

    It is run only if that is safe for root too: a regular file owned by root, writable by nobody
    else, named qemu-SOMETHING (other programs might run a program called ``--version``).
    """
    resolved = os.path.realpath(path)
    try:
        if not Path(resolved).is_file():
            gone = "it is not a file" if Path(resolved).exists() else "it does not exist"
            return _unusable(path, None, gone)
        if not os.access(resolved, os.X_OK):
            return _unusable(path, resolved, "it is not executable")
        found = elf.read(Path(resolved))
        changed = Path(resolved).stat().st_ctime_ns
    except (OSError, ValueError) as error:
        return _unusable(path, None, getattr(error, "strerror", None) or str(error))
    return Program(
        path=path,
        resolved=resolved,
        static=None if found is None else found.static,
        loader=None if found is None else found.loader,
        version=_version(resolved) if version else None,
        problem=None,
        changed=changed,
    )


def is_ours(path: Path, machine: str | None = None) -> bool:
    """Return whether a kernel (default: ``uname -m``) runs a file natively: ELF or script."""
    try:
        found = elf.read(path)
        if found is None:
            with path.open("rb") as file:
                return file.read(2) == b"#!"
    except OSError:
        return False
    return (found.bits, found.machine) in OWN.get(machine or platform.machine(), ())


def architecture_of(path: Path) -> Architecture | None:
    """Return the foreign architecture that an interpreter itself is built for, a mistake."""
    try:
        with path.open("rb") as file:
            return of_header(file.read(20))
    except OSError:
        return None


def find(architecture: Architecture, *, debian: Path = DEBIAN, binaries: Path = BINARIES) -> Path:
    """Return the best installed interpreter: a static one, with the name that suits flag P.

    Raises MissingCapability, with the package.
    """
    places = [debian / f"{architecture.name}-binfmt-P"]
    places += [binaries / name for name in names(architecture.name)]
    for path in places:
        if path.exists():
            return path
    raise missing(architecture.name)


def names(architecture: str) -> tuple[str, str]:
    """Return QEMU's names of the interpreter for an architecture, the preferred one first.

    Without ``-static``, it is dynamic in Debian 12 and static in Debian 13 and Alpine; Debian
    after 13 has neither the package ``qemu-user-static`` nor that name.
    """
    return f"qemu-{architecture}-static", f"qemu-{architecture}"


def missing(architecture: str) -> MissingCapability:
    """Return the error for an architecture without an interpreter on this host."""
    return MissingCapability(
        f"qemu-{architecture} not found; it runs {architecture} programs on this host",
        hint=f"apt-get install {APT_PACKAGE} (or: dnf install {APT_PACKAGE}-{architecture})",
    )


def others_can_write(path: Path) -> Path | None:
    """Return the part of a path (the file or a parent directory) that non-root users can change.

    Everybody runs root's handlers, root too: whoever can change the interpreter becomes root.
    """
    real = Path(os.path.realpath(path))
    for part in (real, *real.parents):
        try:
            found = part.stat()
        except OSError:
            return part
        open_to_all = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (open_to_all and not sticky):
            return part
    return None


def _version(resolved: str) -> str | None:
    if not Path(resolved).name.startswith("qemu-") or others_can_write(Path(resolved)):
        return None
    try:
        told = process.run([resolved, "--version"], timeout=PATIENCE, check=False).text
    except (ArmvmError, OSError):
        return None
    hit = re.search(r"version ([0-9][0-9.]*(?: \([^)\n]{1,80}\))?)", told)
    return hit[1] if hit else None


def _unusable(path: str, resolved: str | None, problem: str) -> Program:
    return Program(
        path=path, resolved=resolved, static=None, loader=None, version=None, problem=problem
    )
