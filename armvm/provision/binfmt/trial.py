"""The result of `armvm binfmt test`: trials of each architecture's handler."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from armvm.base.errors import NotFound
from armvm.base.result import Doc
from armvm.usermode.architectures import ARCHITECTURES, NATIVE, Architecture, find
from armvm.usermode.binfmt import trial
from armvm.usermode.binfmt.handlers import read


@dataclass(frozen=True, kw_only=True)
class TrialDetails:
    """A sample program run in one way."""

    way: Annotated[trial.Way, Doc("How it was run.")]
    outcome: Annotated[trial.Result, Doc("The result.")]
    reason: Annotated[str | None, Doc("Why it fails, or could not be tested.")]
    fix: Annotated[str | None, Doc("How to fix it.")]


@dataclass(frozen=True, kw_only=True)
class ArchitectureTrials:
    """An architecture, and the trials of its handler."""

    architecture: Annotated[str, Doc("QEMU's name.")]
    native: Annotated[bool, Doc("Whether this host's kernel runs its programs without a handler.")]
    handler: Annotated[str | None, Doc("The handler for its programs.")]
    trials: Annotated[list[TrialDetails], Doc("A sample program, run in three ways.")]


def test(names: Sequence[str]) -> list[ArchitectureTrials]:
    """Return the trials of these architectures, or of all that have a handler.

    Raises NotFound for an unknown name, or if no handler is registered and *names* is empty.
    """
    table = read()
    chosen = list(dict.fromkeys(find(name) for name in names)) or [
        one for one in ARCHITECTURES if table.takers(one.magic)
    ]
    if not chosen:
        raise NotFound(
            "no binfmt handler is registered",
            hint="register one: sudo armvm binfmt register aarch64",
        )
    return [_facts(one) for one in chosen]


def all_work(found: Sequence[ArchitectureTrials]) -> bool:
    """Return whether all trials that could run succeeded."""
    return all(each.outcome is not trial.Result.FAILS for one in found for each in one.trials)


def _facts(architecture: Architecture) -> ArchitectureTrials:
    table = read()
    winner = table.winner(architecture.magic) if table.on else None
    return ArchitectureTrials(
        architecture=architecture.name,
        native=NATIVE.get(platform.machine()) == architecture.name,
        handler=winner.name if winner else None,
        trials=[
            TrialDetails(way=one.way, outcome=one.result, reason=one.reason, fix=one.fix)
            for one in trial.test(architecture)
        ],
    )
