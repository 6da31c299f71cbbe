"""Undoing what a use case did when it ends early, and letting no signal come in between."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from armvm.progress import Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def shielded() -> Iterator[None]:
    """Run a block to its end: signals that would end the program wait until it is done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, remember) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            os.kill(os.getpid(), came[0])


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
