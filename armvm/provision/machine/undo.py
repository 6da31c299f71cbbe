"""Undoing what a use case did when it ends early."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from armvm.base.progress import Progress
from armvm.base.signals import shielded


class Undo:
    """What to take back unless the block comes to its end: the last first.

    A step that fails does not keep the others from being taken; it is told as a warning.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: list[Callable[[], Any]] = []

    def add(self, step: Callable[[], Any]) -> None:
        """Remember how to take back what is about to be done."""
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
                except Exception as failure:  # a bug in one step must not keep the rest
                    self._progress.warn(f"could not be undone: {failure}")
