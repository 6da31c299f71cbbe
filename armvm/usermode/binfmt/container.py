"""Predict whether the programs of a container image run on this host's kernel, and why.

A container shares the kernel, and with it the binfmt handlers, but not the root file system: a
handler's interpreter must have been opened at registration (flag F), and must need no loader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from armvm.base.errors import NotFound
from armvm.usermode import architectures
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt import unhandled
from armvm.usermode.binfmt.execution import Outcome
from armvm.usermode.binfmt.handlers import Handler, Table
from armvm.usermode.programs import interpreter
from armvm.usermode.programs.interpreter import Program

#: What the engine prints if the kernel has no use for the program.
_NOEXEC = 'the container ends at once with "exec format error"'


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A platform as container images record it: ``linux``, ``arm``, ``v7``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def valid(self) -> bool:
        """Whether each part is a plain word, as in the OCI's image specification."""
        parts = (self.os, self.architecture, self.variant or "v")
        return all(re.fullmatch("[a-z0-9][a-z0-9._-]{0,30}", part) for part in parts)

    def is_native(self, machine: str) -> bool:
        """Return whether a Linux kernel (``uname -m``) runs its programs without a handler."""
        known = architectures.of_platform(self.architecture)
        if known is None:
            return self.architecture in architectures.NATIVE_PLATFORMS.get(machine, ())
        return architectures.NATIVE.get(machine) == known.name


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a container does, the handler that decides it, if any, and its interpreter."""

    architecture: Architecture | None
    native: bool
    winner: Handler | None
    program: Program | None
    outcome: Outcome
    happens: str
    fix: str | None


def predict(
    platform: Platform, table: Table, machine: str, runs: Callable[[Architecture], bool]
) -> Prediction:
    """Return what becomes of a platform's programs in a container on a host with these handlers.

    *machine* is the host's (``uname -m``). *runs* tries an architecture's program, for a kernel
    whose handlers cannot be seen here, and for an ARM64 one that runs 32-bit programs. Raises
    NotFound for an architecture that armvm does not know.
    """
    architecture = architectures.of_platform(platform.architecture)
    native = platform.is_native(machine)
    winner = table.winner(architecture.magic) if architecture and table.on else None
    program = interpreter.look(winner.interpreter) if winner else None

    def ends(outcome: Outcome, happens: str, fix: str | None = None) -> Prediction:
        return Prediction(
            architecture=architecture,
            native=native,
            winner=winner,
            program=program,
            outcome=outcome,
            happens=happens,
            fix=fix,
        )

    if platform.os != "linux":
        return ends(Outcome.FAILS, f"a Linux kernel does not run programs for {platform.os}")
    if winner is not None and program is not None and architecture is not None:
        return ends(*_handled(architecture, winner, program))
    if native:
        return ends(Outcome.RUNS, "the kernel runs its programs natively")
    if architecture is None:
        known = ", ".join(one.platform for one in architectures.ARCHITECTURES if one.platform)
        raise NotFound(
            f"unknown architecture in the image's platform {platform}",
            hint=f"known: {known}; armvm binfmt status lists the handlers",
        )
    why = unhandled.reason(architecture, table)
    if runs(architecture):
        return ends(
            Outcome.RUNS,
            f"{why} here, but the kernel runs a sample program for {architecture.name}",
        )
    return ends(
        Outcome.FAILS,
        f"{_NOEXEC}: the kernel does not run {architecture.name} programs natively, and {why}",
        unhandled.fix(architecture, table),
    )


def _handled(
    architecture: Architecture, winner: Handler, program: Program
) -> tuple[Outcome, str, str | None]:
    again = f"sudo armvm binfmt register {architecture.name} --replace"
    if not winner.fixed:
        return (
            Outcome.FAILS,
            f"the handler {winner.name} lacks flag F, so the kernel looks for "
            f'{winner.interpreter} inside the container: "no such file or directory", unless the '
            "image contains it",
            again,
        )
    if program.static is False:
        return (
            Outcome.FAILS,
            f"the interpreter {winner.interpreter} (handler {winner.name}) is dynamic, and its "
            f"loader {program.loader} does not exist in the container: "
            '"no such file or directory"',
            f"{again} --interpreter FILE, with a static FILE",
        )
    runs = (
        f"the kernel starts {winner.interpreter} (handler {winner.name}) with each of its "
        "programs; flag F keeps it open, so the image needs no copy"
    )
    if program.problem is not None:
        runs += f"; its path can no longer be used ({program.problem}), which does not matter"
    return Outcome.RUNS, runs, None
