"""Predict in words what happens to a program, and the fix; `execution` collects the facts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from armvm.base.errors import NotFound, PermissionDenied
from armvm.usermode.binfmt.execution import (
    Explanation,
    Kind,
    Outcome,
    command,
    examine,
    mode_problem,
)
from armvm.usermode.binfmt.handlers import Table

#: Maximum depth of scripts whose interpreters are scripts; the kernel's limit (ELOOP).
DEPTH = 4
_NOEXEC = 'execve fails with ENOEXEC ("Exec format error")'


def explain(
    path: Path,
    table: Table,
    *,
    sysroot: str | None = None,
    machine: str | None = None,
    environment: Mapping[str, str] | None = None,
    depth: int = DEPTH,
) -> Explanation:
    """Explain the file at *path* on a host (default: ``uname -m``) with these handlers.

    Raises NotFound if it does not exist, PermissionDenied if it cannot be read.
    """
    found = examine(path, table, sysroot=sysroot, machine=machine, environment=environment)
    name = found.script
    if name and depth and name.startswith("/"):
        try:
            inner = explain(
                Path(name), table, machine=machine, environment=environment, depth=depth - 1
            )
        except (NotFound, PermissionDenied):
            pass
        else:
            found = replace(found, inner=inner)
    return _judged(found, table)


def _judged(found: Explanation, table: Table) -> Explanation:
    """Return the explanation with its outcome, the predicted events, and the fix."""
    problem = mode_problem(found.path)
    if problem is not None:
        happens = f'execve fails with EACCES ("Permission denied"): {problem}'
        if found.winner is None and found.kind not in (Kind.ELF, Kind.SCRIPT):
            happens += "; also, it is not a program: neither ELF nor a script with a '#!' line"
            return _ends(found, happens, None)
        return replace(found, outcome=Outcome.FAILS, happens=happens, fix=_mode_fix(found, problem))
    if found.winner is not None:
        return _handled(found)
    if found.kind is Kind.SCRIPT:
        return _script(found)
    if found.kind is Kind.ELF:
        return _elf(found, table)
    if found.kind is Kind.EMPTY:
        return _ends(found, _NOEXEC + "; shells run it as an empty script", None)
    if found.kind is Kind.TEXT:
        happens = f"{_NOEXEC}: it lacks a '#!' line; shells run it as their own script"
        return _ends(found, happens, "put '#!/bin/sh', or another interpreter, in its first line")
    return _ends(
        found, f"{_NOEXEC}: it is neither ELF nor a script, and no handler matches it", None
    )


def _handled(found: Explanation) -> Explanation:
    winner, program = found.winner, found.program
    assert winner is not None and program is not None  # noqa: S101 - the caller's condition
    fix = (
        f"armvm binfmt register {found.architecture.name} --replace"
        if (found.architecture)
        else "register the handler again, with an existing interpreter"
    )
    if program.problem is not None and not winner.fixed:
        error = (
            'EACCES ("Permission denied")'
            if program.resolved
            else (
                'ENOENT ("No such file or directory", which means the interpreter, not the program)'
            )
        )
        happens = (
            f"the handler {winner.name} matches it, but its interpreter {winner.interpreter} "
            f"cannot run ({program.problem}): execve fails with {error}"
        )
        return replace(found, outcome=Outcome.FAILS, happens=happens, fix=fix)
    runs = f"the kernel starts {winner.interpreter} (handler {winner.name}) with it"
    if program.problem is not None:
        runs += ", from the file opened at registration (the path no longer exists)"
    if found.prefix is not None and found.elf is not None and found.elf.loader is not None:
        call = f"QEMU_LD_PREFIX={shlex.quote(found.prefix)} {command(found.path)}"
        runs = f"run as {call}, {runs}"
    if not winner.fixed:
        runs += "; in a chroot or container without that file it fails with ENOENT (no flag F)"
    return _loading(found, runs)


def _loading(found: Explanation, runs: str) -> Explanation:
    """Predict what happens after execve: the loader and the libraries."""
    elf = found.elf
    if elf is None:
        return replace(found, outcome=Outcome.RUNS, happens=runs)
    if elf.problems or not elf.segments:
        why = "; ".join(elf.problems) or "it contains no segments to load"
        return replace(
            found,
            outcome=Outcome.LIKELY_FAILS,
            happens=f"{runs}, but the file is damaged: {why}",
            fix="replace the file by an intact copy",
        )
    missing = [one for one in found.libraries if one.path is None]
    if found.loader is not None and found.loader.path is None:
        name = found.loader.name
        end = (
            f"{runs}; it then ends with \"Could not open '{name}': No such file or directory\": "
            "the loader was not found"
            if not found.native
            else 'execve fails with ENOENT ("No such file or directory"): the loader '
            f"{name} was not found"
        )
        outcome = Outcome.FAILS if found.native else Outcome.LIKELY_FAILS
        return replace(found, outcome=outcome, happens=end, fix=_library_fix(found))
    if missing:
        names = ", ".join(one.name for one in missing)
        return replace(
            found,
            outcome=Outcome.LIKELY_FAILS,
            happens=f"{runs}; its loader then does not find {names}",
            fix=_library_fix(found),
        )
    if elf.type == 3 and elf.static and elf.needed:
        runs += "; but it is a shared library rather than a program, so expect a crash"
        return replace(found, outcome=Outcome.LIKELY_FAILS, happens=runs)
    return replace(found, outcome=Outcome.RUNS, happens=runs)


def _library_fix(found: Explanation) -> str | None:
    wanted = [one for one in (found.loader, *found.libraries) if one is not None]
    elsewhere = next((one.elsewhere for one in wanted if one.elsewhere), None)
    program = command(found.path)
    if found.architecture is None or found.native:
        return "install the packages with the missing files"
    if elsewhere:
        return f"QEMU_LD_PREFIX={shlex.quote(elsewhere)} {program}"
    debian = found.architecture.debian[0] if found.architecture.debian else None
    fix = f"QEMU_LD_PREFIX=DIR {program}, where DIR is a root for {found.architecture.name}"
    if debian:
        fix += f"; Debian: dpkg --add-architecture {debian} && apt-get update && "
        fix += f"apt-get install libc6:{debian}"
    return fix


def _script(found: Explanation) -> Explanation:
    name = found.script or ""
    if not name:
        return _ends(found, f"{_NOEXEC}: its '#!' line lacks an interpreter", "add one")
    if found.inner is None:
        why = "does not exist" if name.startswith("/") else "is not an absolute path"
        happens = (
            f'execve fails with ENOENT ("No such file or directory"): {name}, from its first '
            f"line, {why}"
        )
        fix = f"install {name}, or change the first line"
        if name.endswith("\r"):
            fix = "convert its line ends from CR LF to LF: the interpreter's name ends in CR"
        return replace(found, outcome=Outcome.FAILS, happens=happens, fix=fix)
    happens = f"the kernel starts {name} with it: {found.inner.happens}"
    return replace(found, outcome=found.inner.outcome, happens=happens, fix=found.inner.fix)


def _elf(found: Explanation, table: Table) -> Explanation:
    elf = found.elf
    assert elf is not None  # noqa: S101 - the caller's condition
    if elf.type not in (2, 3):
        return _ends(
            found, f"{_NOEXEC}: an ELF file of type {elf.type_name} is not a program", None
        )
    if found.native:
        return _loading(found, "the kernel runs it natively")
    what = f"this kernel does not run programs for {elf.machine_name} natively, and"
    if found.architecture is None:
        fix = "run it with qemu-ARCH for its machine" if elf.machine else None
        return _ends(found, f"{_NOEXEC}: {what} no handler matches it", fix)
    name = found.architecture.name
    fix = f"sudo armvm binfmt register {name}, or: qemu-{name}-static FILE"
    off = next((one for one in found.candidates if not one.enabled), None)
    if not table.mounted:
        return _ends(found, f"{_NOEXEC}: {what} binfmt_misc is not mounted", fix)
    if not table.on:
        fix = "sudo sh -c 'echo 1 > /proc/sys/fs/binfmt_misc/status'"
        return _ends(found, f"{_NOEXEC}: {what} binfmt_misc is disabled", fix)
    if off is not None:
        fix = f"sudo sh -c 'echo 1 > /proc/sys/fs/binfmt_misc/{off.name}'"
        return _ends(found, f"{_NOEXEC}: {what} the handler {off.name} is disabled", fix)
    return _ends(found, f"{_NOEXEC}: {what} no handler matches it", fix)


def _mode_fix(found: Explanation, problem: str) -> str | None:
    if "chmod" in problem:
        return f"chmod +x {command(found.path)}"
    return "copy it to a file system that is not mounted noexec" if "noexec" in problem else None


def _ends(found: Explanation, happens: str, fix: str | None) -> Explanation:
    return replace(found, outcome=Outcome.FAILS, happens=happens, fix=fix)
