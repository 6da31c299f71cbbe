"""Reverts the steps of a use case that fails."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from armvm.base.progress import Progress
from armvm.base.signals import shielded


class Undo:
    """Steps that run, last first, if the block raises.

    A step that fails prints a warning, and the others still run.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: list[Callable[[], Any]] = []

    def add(self, step: Callable[[], Any]) -> None:
        """Register how to revert what the caller does next."""
        self._steps.append(step)

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        with shielded():
            for step in reversed(self._steps):
                try:
                    step()
                except Exception as failure:  # a bug in one step must not prevent the others
                    self._progress.warn(f"cleanup failed: {failure}")
