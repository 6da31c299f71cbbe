"""Collect what decides whether the kernel runs a program: `armvm binfmt explain`.

The order in fs/exec.c: the file must be a regular, executable file on a file system that is not
mounted noexec. Then the kernel tries each binary format; binfmt_misc comes before ELF and
scripts, so a handler can also match the host's own programs. If no format matches, the result is
ENOEXEC, "Exec format error", and shells then run the file as a script.
"""

from __future__ import annotations

import os
import platform
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from armvm.base.errors import NotFound, PermissionDenied
from armvm.usermode import architectures
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt.handlers import Handler, Table
from armvm.usermode.programs import elf, interpreter, libraries
from armvm.usermode.programs.elf import Elf
from armvm.usermode.programs.interpreter import Program
from armvm.usermode.programs.libraries import Wanted

#: Number of bytes that the kernel passes to the binary formats (BINPRM_BUF_SIZE).
HEADER = 256


class Outcome(str, Enum):
    """The result of execve."""

    RUNS = "runs"
    FAILS = "fails"
    LIKELY_FAILS = "fails later"


class Kind(str, Enum):
    """The kind of a file."""

    ELF = "elf"
    SCRIPT = "script"
    TEXT = "text"
    EMPTY = "empty"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The facts about a file and the predicted result; *header* is its first 256 bytes.

    *candidates* are the handlers for its architecture, matching or not, latest first, and
    *program* the interpreter of the matching one. *prefix* is the sysroot from the user.
    """

    path: Path
    kind: Kind
    header: bytes
    elf: Elf | None
    architecture: Architecture | None
    native: bool
    winner: Handler | None
    candidates: tuple[Handler, ...]
    program: Program | None
    loader: Wanted | None
    libraries: tuple[Wanted, ...]
    script: str | None
    prefix: str | None = None
    inner: Explanation | None = None
    outcome: Outcome = Outcome.RUNS
    happens: str = ""
    fix: str | None = None


def examine(
    path: Path,
    table: Table,
    *,
    sysroot: str | None = None,
    machine: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Explanation:
    """Examine the file at *path* on a host (default: ``uname -m``) with these handlers.

    `armvm.usermode.binfmt.outcome` predicts the result.

    Raises NotFound if it does not exist, PermissionDenied if it cannot be read.
    """
    header = _header(path)
    found = elf.read(path) if header[:4] == b"\x7fELF" else None
    host = machine or platform.machine()
    architecture = architectures.of_header(header)
    native = found is not None and (found.bits, found.machine) in interpreter.OWN.get(host, ())
    winner = table.winner(header) if table.on else None
    prefix = sysroot or (environment or {}).get("QEMU_LD_PREFIX") or None
    at = libraries.places(
        None if native else architecture,
        path,
        sysroot=None if native and not sysroot else prefix,
        triplets=(f"{host}-linux-gnu", "i386-linux-gnu") if native else (),
    )
    script = _script(header)
    return Explanation(
        path=path,
        kind=_kind(header, found, script),
        header=header,
        elf=found,
        architecture=architecture,
        native=native,
        winner=winner,
        candidates=_candidates(header, architecture, table),
        program=interpreter.look(winner.interpreter) if winner else None,
        loader=libraries.find_loader(found.loader, at, header) if found and found.loader else None,
        libraries=tuple(
            libraries.find_library(name, found.runpath, path, at, header) for name in found.needed
        )
        if found
        else (),
        script=script,
        prefix=None if native else sysroot,
    )


def command(path: Path) -> str:
    """Return a file as written on a shell's command line."""
    text = str(path)
    return shlex.quote(text if "/" in text else f"./{text}")


def mode_problem(path: Path) -> str | None:
    """Return why the kernel would reject a file without reading it, or None."""
    try:
        found = path.stat()
        flags = os.statvfs(path).f_flag
    except OSError as error:
        return error.strerror
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if not found.st_mode & 0o111:
        return "it is not executable (chmod +x)"
    if flags & os.ST_NOEXEC:
        return "its file system is mounted noexec"
    return None


def _header(path: Path) -> bytes:
    """Return a file's first bytes. Pipes and devices are not opened: they might block."""
    try:
        if path.is_dir():
            raise NotFound(f"{path} is a directory", hint="give the path of a program in it")
        if not path.is_file():
            what = "not a regular file" if path.exists() else "not found"
            raise NotFound(f"file {path}: {what}", hint="give the path of a program")
        # Some files in /proc have the mode of regular files, and block until there is news.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return file.read(HEADER) or b""
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot read {path}",
            hint=f"sudo armvm binfmt explain {shlex.quote(str(path))}",
        ) from error
    except (OSError, ValueError) as error:
        raise NotFound(
            f"cannot read {str(path)!r}: {error}", hint="give the path of a program"
        ) from error


def _kind(header: bytes, found: Elf | None, script: str | None) -> Kind:
    if not header:
        return Kind.EMPTY
    if found is not None:
        return Kind.ELF
    if script is not None:
        return Kind.SCRIPT
    return Kind.OTHER if b"\0" in header else Kind.TEXT


def _script(header: bytes) -> str | None:
    """Return the interpreter in a script's first line, "" if the line has none."""
    if header[:2] != b"#!":
        return None
    # For the kernel, only blanks end the name: a CR before the line's end is part of it.
    first = header[2:].split(b"\n", 1)[0].strip(b" \t").replace(b"\t", b" ").split(b" ")[0]
    return first.split(b"\0")[0].decode(errors="replace")


def _candidates(
    header: bytes, architecture: Architecture | None, table: Table
) -> tuple[Handler, ...]:
    """Return the handlers relevant to a file: those that match it or its architecture."""
    names = {f"qemu-{architecture.name}", f"armvm-{architecture.name}"} if architecture else set()
    return tuple(one for one in table.handlers if one.takes(header) or one.name in names)
