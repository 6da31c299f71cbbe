"""Handlers in a user namespace of one's own: no root needed, and this host stays as it is.

Since Linux 6.7 (commit 21ca59b365c0) each user namespace can have its own binfmt_misc, mounted by
whoever is root in it. A new one is empty and hides all that was registered outside, so what is
not registered in it does not run there. It is gone with the last program in it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from armvm.base import process, programs
from armvm.base.errors import ArmvmError, HostError, MissingCapability, NotFound
from armvm.usermode.binfmt import own_namespace

#: A namespace in which the caller is root by name, with mounts of its own.
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def run(lines: Sequence[str], command: Sequence[str]) -> int:
    """Run *command* on the caller's terminal where *lines* are registered; return its exit code.

    Tried first with a command that does nothing, to tell what is missing from what the command
    itself fails at. Raises MissingCapability, HostError, NotFound.
    """
    probe = process.run(_argv(lines, ["true"]), check=False)
    if probe.returncode != 0:
        raise _trouble(probe.stderr.decode(errors="replace"))
    code = process.passthrough(_argv(lines, command))
    if code == own_namespace.FAILED and not _found(command[0]):
        raise NotFound(
            f"there is no program {command[0]}", hint="name one after --, or nothing for a shell"
        )
    return code


def helper(options: Sequence[str | Path], command: Sequence[str | Path]) -> list[str | Path]:
    """Return the words that run `own_namespace` with a command, in whatever namespace."""
    return [sys.executable, "-I", "-S", own_namespace.__file__, *options, "--", *command]


def failure(text: str) -> tuple[str, int] | None:
    """Return the step that `own_namespace` failed at and its errno, as its standard error tells."""
    hit = re.search(r"^armvm: ([a-z]+) ([0-9]+)$", text, re.MULTILINE)
    return (hit[1], int(hit[2])) if hit else None


def _argv(lines: Sequence[str], command: Sequence[str]) -> list[str | Path]:
    options = [word for line in lines for word in ("--line", line)]
    return [*UNSHARE, "--", *helper(options, command)]


def _found(program: str) -> bool:
    import shutil

    return shutil.which(program, path=programs.search_path()) is not None


def _trouble(text: str) -> ArmvmError:
    failed = failure(text)
    if failed is None:
        return MissingCapability(
            "no user namespace can be made here",
            detail=text.strip()[-500:] or None,
            hint="sysctl kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns decide that; containers forbid it",
        )
    step, number = failed
    told = os.strerror(number)
    if step == "mount":
        why = {
            errno.EPERM: "only Linux 6.7 and newer allow it, and only outside containers",
            errno.EACCES: "a security module forbids it (AppArmor, SELinux)",
            errno.ENODEV: "the module binfmt_misc is not loaded: sudo modprobe binfmt_misc",
        }
        return MissingCapability(
            f"binfmt_misc cannot be mounted in a user namespace: {told}",
            detail=f"this is Linux {os.uname().release}",
            hint=why.get(number, "register it on the host, as root"),
        )
    return HostError(
        f"the kernel does not register the handler there: {told}",
        detail=f"at the step {step}",
        hint="can the interpreter be executed? armvm binfmt register without --user tells more",
    )
