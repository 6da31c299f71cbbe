"""What `armvm binfmt test` tells: trials of architectures, as plain facts."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from armvm.base.errors import NotFound
from armvm.usermode.architectures import ARCHITECTURES, NATIVE, Architecture, find
from armvm.usermode.binfmt import trial
from armvm.usermode.binfmt.handlers import read


def test(names: Sequence[str]) -> list[dict[str, Any]]:
    """Try these architectures, or all that have a handler.

    Raises NotFound for a name that is none, or where no name is given and there is no handler.
    """
    table = read()
    chosen = list(dict.fromkeys(find(name) for name in names)) or [
        one for one in ARCHITECTURES if table.takers(one.magic)
    ]
    if not chosen:
        raise NotFound(
            "there is no handler to test", hint="sudo armvm binfmt register aarch64 makes one"
        )
    return [_facts(one) for one in chosen]


def all_work(found: Sequence[dict[str, Any]]) -> bool:
    """Tell whether nothing failed of what could be tested."""
    return all(trial["outcome"] != "fails" for one in found for trial in one["trials"])


def _facts(architecture: Architecture) -> dict[str, Any]:
    table = read()
    winner = table.winner(architecture.magic) if table.on else None
    return {
        "architecture": architecture.name,
        "native": NATIVE.get(platform.machine()) == architecture.name,
        "handler": winner.name if winner else None,
        "trials": [
            {
                "way": one.way.value,
                "outcome": one.result.value,
                "reason": one.reason,
                "fix": one.fix,
            }
            for one in trial.test(architecture)
        ],
    }
