"""What bears on whether the kernel runs a program: `armvm binfmt explain`.

Order of things, by fs/exec.c: the file must be a regular one that may be executed, on a file
system that is not mounted noexec. Then each binary format is asked in turn; binfmt_misc comes
before ELF and scripts, so a handler can take the host's own programs too. Nobody wanting it is
ENOEXEC, "Exec format error", which shells answer by running the file as a script.
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

#: How many bytes of a file the kernel gives to those who decide (BINPRM_BUF_SIZE).
HEADER = 256


class Outcome(str, Enum):
    """What comes of execve."""

    RUNS = "runs"
    FAILS = "fails"
    LIKELY_FAILS = "fails later"


class Kind(str, Enum):
    """What a file is."""

    ELF = "elf"
    SCRIPT = "script"
    TEXT = "text"
    EMPTY = "empty"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is known of a file and what will happen; *header* is its first 256 bytes.

    *candidates* are the handlers of its architecture, taken or not, the latest first, and
    *program* the interpreter of the one that takes it. *prefix* is the sysroot that was asked for.
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
    """Look at the file at *path* on a host (this one: ``uname -m``) with these handlers.

    What comes of it is left to `armvm.usermode.binfmt.outcome`.

    Raises NotFound where there is none, PermissionDenied where it cannot be read.
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
    """Return a file as a shell's command line calls it."""
    text = str(path)
    return shlex.quote(text if "/" in text else f"./{text}")


def mode_problem(path: Path) -> str | None:
    """Return why the kernel would not even look into a file, if so."""
    try:
        found = path.stat()
        flags = os.statvfs(path).f_flag
    except OSError as error:
        return error.strerror
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    if not found.st_mode & 0o111:
        return "no one may execute it (chmod +x)"
    if flags & os.ST_NOEXEC:
        return "its file system is mounted noexec"
    return None


def _header(path: Path) -> bytes:
    """Return a file's first bytes. A pipe or device is not opened: it might never answer."""
    try:
        if path.is_dir():
            raise NotFound(f"{path} is a directory", hint="name a program in it")
        if not path.is_file():
            what = "no regular file" if path.exists() else "not there"
            raise NotFound(f"{path} is {what}", hint="name a program's file")
        # Some files of /proc are regular by their mode, and answer only when there is news.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return file.read(HEADER) or b""
    except PermissionError as error:
        raise PermissionDenied(
            f"{path} cannot be read", hint=f"sudo armvm binfmt explain {shlex.quote(str(path))}"
        ) from error
    except (OSError, ValueError) as error:
        raise NotFound(
            f"{str(path)!r} cannot be read: {error}", hint="name a program's file"
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
    """Return the interpreter that a script's first line names: "" where it names none."""
    if header[:2] != b"#!":
        return None
    # Blanks end the name for the kernel, nothing else: a CR before the line's end belongs to it.
    first = header[2:].split(b"\n", 1)[0].strip(b" \t").replace(b"\t", b" ").split(b" ")[0]
    return first.split(b"\0")[0].decode(errors="replace")


def _candidates(
    header: bytes, architecture: Architecture | None, table: Table
) -> tuple[Handler, ...]:
    """Return the handlers that bear on a file: those that take it, or are meant for its like."""
    names = {f"qemu-{architecture.name}", f"armvm-{architecture.name}"} if architecture else set()
    return tuple(one for one in table.handlers if one.takes(header) or one.name in names)
