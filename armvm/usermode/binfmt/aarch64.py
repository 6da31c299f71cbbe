"""Make sure that this host runs aarch64 programs, for image builds.

See `handlers` for the kernel's view, `registration` for the line of a handler, and `register` for
permanent handlers (`armvm binfmt register`).
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
    """Return the enabled handler for aarch64 programs, else a disabled one."""
    table = read(root)
    found = table.takers(AARCH64.magic)
    return table.winner(AARCH64.magic) or (found[0] if found else None)


def is_native(machine: str | None = None) -> bool:
    """Return whether a host (default: this one) runs aarch64 programs natively."""
    return (machine or platform.machine()) in ("aarch64", "arm64")


def ensure_handler(
    root: Path = ROOT,
    *,
    machine: str | None = None,
    uid: int | None = None,
    find: Callable[[architectures.Architecture], Path] = interpreter.find,
) -> Handler | None:
    """Make sure that aarch64 programs run here, also in another root file system.

    Returns the handler, or None on an aarch64 host, which needs none. As root, mounts binfmt_misc
    and registers a handler (until the next boot) if one is missing; enables a disabled handler,
    and never replaces an enabled one. Raises MissingCapability, with the command to run, for an
    ordinary user, for a handler without flag F, and if there is no
    interpreter.
    """
    if is_native(machine):
        return None
    privileged = (os.geteuid() if uid is None else uid) == 0
    handler = aarch64_handler(root)
    if handler is not None and handler.enabled:
        if handler.fixed:
            return handler
        raise MissingCapability(
            f"the binfmt handler {handler.name} lacks flag F, so it does not work in other root "
            "file systems",
            detail=f"interpreter {handler.interpreter}, flags {handler.flags or 'none'}",
            hint=f"remove it (as root: echo -1 > {root / handler.name}), then retry",
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
                f"{program} is dynamically linked, so it does not work in other root file systems",
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
            "the kernel accepted the binfmt handler for ARM64 programs, but does not list it",
            hint=f"check {root}",
        )
    return handler


def _commands(root: Path, line: str) -> str:
    """Return the shell commands that mount binfmt_misc if necessary, and register."""
    register = root / "register"
    return (
        f"[ -e {register} ] || mount -t binfmt_misc binfmt_misc {root}; "
        f"printf %s {shlex.quote(line)} > {register}"
    )
