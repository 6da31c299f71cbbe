"""A request to register a handler, and whether its interpreter can be used."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import Conflict, MissingCapability, NotFound
from armvm.base.progress import Progress
from armvm.usermode.architectures import NATIVE, Architecture
from armvm.usermode.binfmt.registration import FLAGS, Rule, line, rule_for
from armvm.usermode.programs import interpreter


@dataclass(frozen=True, kw_only=True)
class Request:
    """A handler to register: *program* None is the best one installed.

    *over* allows it to precede another tool's handler, *dynamic* a dynamic interpreter with F.
    """

    program: Path | None = None
    flags: str = FLAGS
    over: bool = False
    dynamic: bool = False


def rule_of(
    architecture: Architecture, request: Request, progress: Progress, *, machine: str | None = None
) -> Rule:
    """Return the rule for a request, after checking its interpreter.

    *machine* is the host's (``uname -m``). Raises Conflict for the host's own architecture,
    NotFound and MissingCapability for an interpreter that cannot be used, ConfigError for a
    rule that the kernel would reject.
    """
    if NATIVE.get(machine or platform.machine()) == architecture.name:
        raise Conflict(
            f"this host runs {architecture.name} programs natively",
            detail="a handler would match even its own interpreter, and no program would run",
            hint="register another architecture; armvm binfmt status lists the native ones",
        )
    path = request.program or interpreter.find(architecture)
    rule = rule_for(architecture, str(path), flags=request.flags)
    line(rule)
    found = interpreter.look(str(path), version=False)
    if found.problem is not None:
        raise NotFound(
            f"the interpreter {path} cannot be used: {found.problem}",
            hint="use --interpreter FILE with an executable qemu-ARCH",
        )
    if found.static is False and "F" in request.flags and not request.dynamic:
        raise MissingCapability(
            f"{path} is dynamically linked: it does not work in other roots, even with flag F",
            detail=f"in a chroot or a container, the kernel looks there for its loader "
            f"{found.loader}, and the loader for its libraries; they do not exist there",
            hint="use a static one (package qemu-user-static), or --dynamic if you need it only in "
            "this root file system",
        )
    if interpreter.architecture_of(path) == architecture:
        raise MissingCapability(
            f"{path} is itself a program for {architecture.name}, so it cannot be its interpreter",
            hint=f"use a qemu-{architecture.name} built for this host's architecture",
        )
    loose = interpreter.others_can_write(path)
    if loose is not None:
        progress.warn(
            f"users other than root can write to {loose}, and so control all {architecture.name} "
            "programs, root's too"
        )
    return rule
