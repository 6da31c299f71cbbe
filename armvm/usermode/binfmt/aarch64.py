"""Whether this host runs aarch64 programs, and if not, a handler that makes it: for image builds.

What else there is to know of handlers is in `handlers` (what the kernel shows), `registration`
(its line) and `registrar` (handlers that last, for `armvm binfmt register`).
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Callable
from pathlib import Path

from armvm.base.errors import MissingCapability
from armvm.usermode import architectures
from armvm.usermode.binfmt import kernel
from armvm.usermode.binfmt.handlers import ROOT, Handler, read
from armvm.usermode.binfmt.registration import line, rule_for
from armvm.usermode.programs import interpreter

__all__ = ["AARCH64", "ROOT", "aarch64_handler", "ensure_handler", "is_native"]

AARCH64 = architectures.find("aarch64")


def aarch64_handler(root: Path = ROOT) -> Handler | None:
    """Return the handler for aarch64 programs: the one that takes them, else a disabled one."""
    table = read(root)
    found = table.takers(AARCH64.magic)
    return table.winner(AARCH64.magic) or (found[0] if found else None)


def is_native(machine: str | None = None) -> bool:
    """Tell whether a host (this one by default) runs aarch64 programs by itself."""
    return (machine or platform.machine()) in ("aarch64", "arm64")


def ensure_handler(
    root: Path = ROOT,
    *,
    machine: str | None = None,
    uid: int | None = None,
    find: Callable[[architectures.Architecture], Path] = interpreter.find,
) -> Handler | None:
    """See to it that aarch64 programs run here, also in another root file system.

    Returns the handler that does it, or None on an aarch64 host, which needs none. As root,
    binfmt_misc is mounted and a handler registered (until the next boot) where that is missing; a
    handler that is enabled is never replaced, a disabled one is enabled. Raises MissingCapability
    with the command that mends it for an ordinary user, for a handler without flag F, and where
    there is no interpreter.
    """
    if is_native(machine):
        return None
    privileged = (os.geteuid() if uid is None else uid) == 0
    handler = aarch64_handler(root)
    if handler is not None and handler.enabled:
        if handler.fixed:
            return handler
        raise MissingCapability(
            f"the binfmt handler {handler.name} has no flag F, so it works in no other root "
            "file system",
            detail=f"interpreter {handler.interpreter}, flags {handler.flags or 'none'}",
            hint=f"remove it (as root: echo -1 > {root / handler.name}), then try again",
        )
    if handler is not None:
        if not privileged:
            raise MissingCapability(
                f"the binfmt handler {handler.name} is disabled",
                hint=f"sudo sh -c {shlex.quote(f'echo 1 > {root / handler.name}')}",
            )
        kernel.control(root, handler.name, "1")
    else:
        program = find(AARCH64)
        if interpreter.look(str(program), version=False).static is False:
            raise MissingCapability(
                f"{program} is dynamically linked: it runs ARM64 programs in no other root",
                hint=str(interpreter.missing(AARCH64.name).hint),
            )
        text = line(rule_for(AARCH64, str(program)))
        if not privileged:
            raise MissingCapability(
                "no binfmt handler runs ARM64 programs here, and only root can register one",
                hint=f"sudo sh -c {shlex.quote(_commands(root, text))}",
            )
        if not (root / "register").exists():
            kernel.mount(root)
            handler = aarch64_handler(root)
            if handler is not None and handler.enabled:
                return ensure_handler(root, machine=machine, uid=uid, find=find)
        kernel.register(root, text)
    handler = aarch64_handler(root)
    if handler is None or not handler.enabled:
        raise MissingCapability(
            "the kernel took the binfmt handler for ARM64 programs, but does not show it",
            hint=f"look at {root}",
        )
    return handler


def _commands(root: Path, line: str) -> str:
    """Return the shell commands that mount binfmt_misc where needed, and register."""
    register = root / "register"
    return (
        f"[ -e {register} ] || mount -t binfmt_misc binfmt_misc {root}; "
        f"printf %s {shlex.quote(line)} > {register}"
    )
