"""Test handlers: run a minimal program in three ways that fail for different reasons.

Directly: is there an enabled handler, and does its interpreter run? In a chroot that contains only
the program, as in a container: was the interpreter opened at registration (flag F), and is it
static? In a mount namespace that hides the interpreter's directory: the same for a missing path,
while the rest of the root file system is there.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt import handlers, own_namespace, sample_programs, unhandled
from armvm.usermode.binfmt.handlers import Handler, Table
from armvm.usermode.programs import interpreter

#: Seconds that a program of 150 bytes may take, also on a host that is busy.
PATIENCE = 60.0
#: A namespace in which the caller is root by name, with mounts of its own.
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


class Way(str, Enum):
    """How a program is run."""

    DIRECT = "directly"
    CHROOT = "in a chroot"
    NAMESPACE = "in a mount namespace"


class Result(str, Enum):
    """What came of it."""

    WORKS = "works"
    FAILS = "fails"
    UNTESTED = "untested"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way, its result and, if it failed, the reason and the fix."""

    way: Way
    result: Result
    reason: str | None = None
    fix: str | None = None


def test(
    architecture: Architecture, *, root: Path = handlers.ROOT, ways: Sequence[Way] = tuple(Way)
) -> tuple[Trial, ...]:
    """Run the architecture's tiny program, by default in all three ways.

    An ordinary user's chroot and mounts are made in a user namespace, which uses the host's
    handlers as long as it mounts none of its own; where that is forbidden, they are untested.
    """
    with tempfile.TemporaryDirectory(prefix="armvm-binfmt-") as name:
        place = Path(name)
        place.chmod(0o755)
        program = place / "ok"
        program.write_bytes(sample_programs.program(architecture))
        program.chmod(0o755)
        return tuple(_try(way, architecture, program, handlers.read(root)) for way in ways)


def runs_in_chroot(architecture: Architecture) -> bool:
    """Return whether the architecture's tiny program runs in a chroot that has nothing else."""
    (tried,) = test(architecture, ways=[Way.CHROOT])
    return tried.result is Result.WORKS


def _try(way: Way, architecture: Architecture, program: Path, table: Table) -> Trial:
    winner = table.winner(architecture.magic) if table.on else None
    options: list[str | Path] = []
    wanted: Path | str = program
    unshared: Sequence[str] = ()
    if way is Way.CHROOT:
        options, wanted = ["--root", program.parent], "/ok"
        unshared = () if os.geteuid() == 0 else (*UNSHARE, "--")
    elif way is Way.NAMESPACE:
        hidden = Path(winner.interpreter).parent if winner else None
        if hidden is None or hidden == Path("/") or program.is_relative_to(hidden):
            return Trial(way=way, result=Result.UNTESTED, reason=_no_namespace(winner))
        options = ["--hide", hidden] if hidden.is_dir() else []
        root = os.geteuid() == 0
        unshared = ("unshare", "--mount", "--") if root else (*UNSHARE, "--")
    try:
        done = process.run([*unshared, *_helper(options, wanted)], check=False, timeout=PATIENCE)
    except ArmvmError as error:
        return Trial(way=way, result=Result.FAILS, reason=error.message, fix=error.hint)
    if done.returncode == 0 and done.stdout == sample_programs.SAYS:
        return Trial(way=way, result=Result.WORKS)
    said = done.stderr.decode(errors="replace").strip()
    failed = _failure(said)
    if failed is None and unshared and said.startswith("unshare:"):
        return Trial(way=way, result=Result.UNTESTED, reason=said.splitlines()[0])
    if failed is None:
        how = f"exit code {done.returncode}"
        how = f"signal {-done.returncode}" if done.returncode < 0 else how
        reason = f"the interpreter failed with {how}: {said[-300:] or 'no output'}"
        return Trial(way=way, result=Result.FAILS, reason=reason, fix=_fix(architecture))
    step, number = failed
    if step != "execute":
        reason = f"{step} is not possible here: {os.strerror(number)}"
        return Trial(way=way, result=Result.UNTESTED, reason=reason)
    reason, fix = explained(way, number, architecture, table, program)
    return Trial(way=way, result=Result.FAILS, reason=reason, fix=fix)


def _helper(options: Sequence[str | Path], program: str | Path) -> list[str | Path]:
    """Return the words that run `own_namespace` with a program, in whatever namespace."""
    return [sys.executable, "-I", "-S", own_namespace.__file__, *options, "--", program]


def _failure(text: str) -> tuple[str, int] | None:
    """Return the step that `own_namespace` failed at and its errno, from its standard error."""
    hit = re.search(r"^armvm: ([a-z]+) ([0-9]+)$", text, re.MULTILINE)
    return (hit[1], int(hit[2])) if hit else None


def explained(
    way: Way, number: int, architecture: Architecture, table: Table, program: Path
) -> tuple[str, str | None]:
    """Return why execve failed with this errno, and how to fix it."""
    winner = table.winner(architecture.magic) if table.on else None
    told = f"{os.strerror(number)} (errno {errno.errorcode.get(number, number)})"
    if winner is None:
        return (
            f"{told}: {unhandled.reason(architecture, table)}",
            unhandled.fix(architecture, table),
        )
    found = interpreter.look(winner.interpreter, version=False)
    if number == errno.ENOEXEC:
        if found.resolved and not interpreter.is_ours(Path(found.resolved)):
            reason = f"the interpreter {winner.interpreter} is not a program for this host"
            return f"{told}: {reason}", _fix(architecture)
        reason = (
            f"{handlers.ROOT} shows the handler {winner.name}, but the kernel does not use it: "
            "this user namespace has its own binfmt_misc, which is not mounted there"
        )
        return f"{told}: {reason}", "leave the namespace, or mount its binfmt_misc"
    if number == errno.ENOENT and not winner.fixed:
        if way is Way.DIRECT:
            reason = f"the interpreter {winner.interpreter} cannot be used: {found.problem}"
            return f"{told}: {reason}", _fix(architecture)
        where = "inside the chroot" if way is Way.CHROOT else "where the program runs"
        reason = (
            f"the handler {winner.name} lacks flag F, so the kernel looks for "
            f"{winner.interpreter} {where}, where it does not exist"
        )
        return f"{told}: {reason}", _fix(architecture)
    if number == errno.ENOENT and found.static is False:
        reason = f"the interpreter is dynamic, and its loader {found.loader} does not exist"
        return f"{told}: {reason}", f"{_fix(architecture)} --interpreter FILE, with a static FILE"
    if number == errno.EACCES and os.statvfs(program).f_flag & os.ST_NOEXEC:
        reason = f"{program.parent} is on a file system that is mounted noexec"
        return (
            f"{told}: {reason}",
            "set TMPDIR to a directory on another file system, and test again",
        )
    if number == errno.EACCES:
        return f"{told}: the interpreter {winner.interpreter} is not executable", _fix(architecture)
    return f"{told}: from the handler {winner.name}, which runs {winner.interpreter}", None


def _fix(architecture: Architecture) -> str:
    return f"sudo armvm binfmt register {architecture.name} --replace"


def _no_namespace(winner: Handler | None) -> str:
    if winner is None:
        return "no handler is registered, so no interpreter can be hidden"
    return f"the directory of {winner.interpreter} cannot be hidden on its own"
