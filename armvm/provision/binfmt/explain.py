"""What `armvm binfmt explain` tells of a file, as plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armvm.usermode.binfmt.execution import Explanation
from armvm.usermode.binfmt.handlers import ROOT, Handler, read
from armvm.usermode.binfmt.outcome import explain as explain_file
from armvm.usermode.programs.elf import Elf
from armvm.usermode.programs.libraries import Wanted


def explain(
    path: Path,
    sysroot: Path | None,
    environment: Mapping[str, str],
    *,
    root: Path = ROOT,
    machine: str | None = None,
) -> dict[str, Any]:
    """Return what a file is, who takes it, and what comes of running it.

    Raises NotFound, PermissionDenied.
    """
    found = explain_file(
        path,
        read(root),
        sysroot=str(sysroot) if sysroot else None,
        environment=environment,
        machine=machine,
    )
    return _facts(found)


def _facts(found: Explanation) -> dict[str, Any]:
    return {
        "path": str(found.path).encode(errors="replace").decode(),
        "kind": found.kind.value,
        "header": found.header[:20].hex(),
        "elf": _elf(found.elf) if found.elf else None,
        "architecture": found.architecture.name if found.architecture else None,
        "native": found.native,
        "handler": found.winner.name if found.winner else None,
        "handlers": [_handler(one, found) for one in found.candidates],
        "interpreter": _wanted_interpreter(found),
        "loader": _wanted(found.loader) if found.loader else None,
        "libraries": [_wanted(one) for one in found.libraries],
        "script": found.script,
        "outcome": found.outcome.value,
        "happens": found.happens,
        "fix": found.fix,
    }


def _elf(elf: Elf) -> dict[str, Any]:
    order = {True: "little endian", False: "big endian", None: None}
    return {
        "class": elf.bits,
        "data": order[elf.little],
        "type": elf.type_name,
        "machine": elf.machine_name,
        "machine_number": elf.machine,
        "os_abi": elf.abi,
        "interpreter": elf.loader,
        "linking": "static" if elf.static else "dynamic",
        "needed": list(elf.needed),
        "runpath": list(elf.runpath),
        "problems": list(elf.problems),
    }


def _handler(handler: Handler, found: Explanation) -> dict[str, Any]:
    return {
        "name": handler.name,
        "enabled": handler.enabled,
        "interpreter": handler.interpreter,
        "flags": handler.flags,
        "takes": handler.takes(found.header),
        "offset": handler.offset,
        "magic": handler.magic.hex(),
        "mask": handler.full_mask.hex(),
        "bytes": found.header[handler.offset : handler.offset + len(handler.magic)].hex(),
    }


def _wanted_interpreter(found: Explanation) -> dict[str, Any] | None:
    program = found.program
    if program is None:
        return None
    return {
        "path": program.path,
        "resolved": program.resolved,
        "version": program.version,
        "static": program.static,
        "problem": program.problem,
    }


def _wanted(one: Wanted) -> dict[str, Any]:
    return {"name": one.name, "found": one.path, "elsewhere": one.elsewhere}
