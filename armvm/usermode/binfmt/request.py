"""What is asked to be registered, and whether its interpreter can do it."""

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
class Wish:
    """What to register: *program* None is the best that is installed.

    *over* lets it go before another tool's handler, *dynamic* lets a dynamic interpreter have F.
    """

    program: Path | None = None
    flags: str = FLAGS
    over: bool = False
    dynamic: bool = False


def rule_of(
    architecture: Architecture, wish: Wish, progress: Progress, *, machine: str | None = None
) -> Rule:
    """Return the rule that a wish comes to, its interpreter looked at.

    *machine* is the host's (``uname -m``). Raises Conflict for the host's own architecture,
    NotFound and MissingCapability for an interpreter that cannot do it, ConfigError for
    what the kernel would refuse.
    """
    if NATIVE.get(machine or platform.machine()) == architecture.name:
        raise Conflict(
            f"this host runs {architecture.name} programs by itself",
            detail="a handler would take them all, its own interpreter too, and then none ran",
            hint="register another architecture; armvm binfmt status shows which are native",
        )
    path = wish.program or interpreter.find(architecture)
    rule = rule_for(architecture, str(path), flags=wish.flags)
    line(rule)
    found = interpreter.look(str(path), version=False)
    if found.problem is not None:
        raise NotFound(
            f"the interpreter {path} cannot be used: {found.problem}",
            hint="--interpreter FILE takes the path of a qemu-ARCH that can be executed",
        )
    if found.static is False and "F" in wish.flags and not wish.dynamic:
        raise MissingCapability(
            f"{path} is dynamically linked, so flag F would not make it work in other roots",
            detail=f"in a chroot or a container the kernel looks there for its loader "
            f"{found.loader} and then it for its libraries; none of them is there",
            hint="take a static one (package qemu-user-static), or say --dynamic if it is for "
            "this root alone",
        )
    if interpreter.architecture_of(path) == architecture:
        raise MissingCapability(
            f"{path} is itself a program for {architecture.name}, so it cannot run any",
            hint=f"take a qemu-{architecture.name} of this host's own architecture",
        )
    loose = interpreter.others_can_write(path)
    if loose is not None:
        progress.warn(
            f"{loose} can be changed by others than root, and with it what {architecture.name} "
            "programs run as, root's too"
        )
    return rule
