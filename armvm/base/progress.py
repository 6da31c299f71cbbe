"""Show progress on standard error, never on standard output.

Long tasks take a *Progress*: a live line on a terminal, plain lines elsewhere, nothing with
``--quiet``. Stream and clock are arguments, so that each can be tested without a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from armvm.base.printable import printable, printable_lines

#: Seconds between two plain lines about the same task if nothing changes: frequent at first,
#: then half of the task's age, at most a minute. Logs are read later and should stay short.
PLAIN_INTERVALS = (5.0, 60.0)


class Task(Protocol):
    """A running task."""

    def update(
        self, done: int | None = None, text: str | None = None, outlook: str | None = None
    ) -> None:
        """Report how many units are *done*, or the current step (*text*).

        *outlook* estimates the end if nothing can be counted: ``about 40 s left``.
        """


class Progress(Protocol):
    """Where messages and tasks are reported."""

    def say(self, text: str) -> None:
        """Print a message."""

    def warn(self, text: str) -> None:
        """Print a warning."""

    def task(self, label: str, *, total: int | None = None) -> AbstractContextManager[Task]:
        """Start a task; *total* is its size in bytes, if known."""


def size_text(count: float) -> str:
    """Return a number of bytes in binary units: ``size_text(1536)`` is ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def duration_text(seconds: float) -> str:
    """Return a duration for people: ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Quiet:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Drop it."""

    def warn(self, text: str) -> None:
        """Drop it."""

    @contextmanager
    def task(self, label: str, *, total: int | None = None) -> Iterator[Task]:
        """Run a task without output."""
        yield self

    def update(
        self, done: int | None = None, text: str | None = None, outlook: str | None = None
    ) -> None:
        """Drop it."""


class Plain:
    """Plain lines for logs and pipes: the start of a task, updates every few seconds, its end."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock

    def say(self, text: str) -> None:
        """Print a line."""
        print(printable_lines(text), file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        """Print a line marked as a warning."""
        self.say(f"warning: {text}")

    @contextmanager
    def task(self, label: str, *, total: int | None = None) -> Iterator[Task]:
        """Report a task in plain lines."""
        running = _PlainTask(self, label, total, self._clock)
        self.say(f"{label} …")
        yield running
        self.say(f"{label}: done in {running.elapsed():.1f} s")


class _PlainTask:
    def __init__(
        self, out: Plain, label: str, total: int | None, clock: Callable[[], float]
    ) -> None:
        self._out, self._label, self._total, self._clock = out, label, total, clock
        self._start = self._last = clock()
        self._text: str | None = None
        #: What was done at the start: a resumed download reports it with its first update.
        self._first: int | None = None

    def elapsed(self) -> float:
        return self._clock() - self._start

    def update(
        self, done: int | None = None, text: str | None = None, outlook: str | None = None
    ) -> None:
        now = self._clock()
        if self._first is None:
            self._first = (done or 0) if now - self._start < 1.0 else 0
        if text is not None and text != self._text:
            self._text, self._last = text, now
            self._out.say(f"{self._label}: {text} ({self._times(outlook)})")
        elif now - self._last >= self._interval(now - self._start):
            self._last = now
            self._out.say(f"{self._label}: {self._amount(done)} ({self._times(outlook)})")

    @staticmethod
    def _interval(age: float) -> float:
        shortest, longest = PLAIN_INTERVALS
        return min(max(shortest, age / 2), longest)

    def _times(self, outlook: str | None) -> str:
        return ", ".join([f"{self.elapsed():.0f} s", *([outlook] if outlook else [])])

    def _amount(self, done: int | None) -> str:
        if done is None:
            return self._text or "still running"
        rate = (done - (self._first or 0)) / max(self.elapsed(), 0.001)
        speed = f"{size_text(rate)}/s"
        if not self._total:
            return f"{size_text(done)}, {speed}"
        share = f"{100 * done // self._total}% of {size_text(self._total)}, {speed}"
        left = (self._total - done) / rate if rate > 0 else None
        return share if left is None else f"{share}, {duration_text(left)} left"


class Named:
    """Progress of one of several parts at work: each message begins with the part's name."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress

    def say(self, text: str) -> None:
        """Print a message."""
        self._progress.say(f"{self._name}: {text}")

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._progress.warn(f"{self._name}: {text}")

    def task(self, label: str, *, total: int | None = None) -> AbstractContextManager[Task]:
        """Start a task."""
        return self._progress.task(f"{self._name}: {label}", total=total)


class Live:
    """A moving line on a terminal, drawn by rich; it disappears when the task ends."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)

    def say(self, text: str) -> None:
        """Print a line above the moving one."""
        from rich.text import Text

        self._console.print(Text(printable_lines(text)), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line marked as a warning."""
        from rich.text import Text

        said = Text.assemble(("warning: ", "yellow"), printable_lines(text))
        self._console.print(said, soft_wrap=True)

    @contextmanager
    def task(self, label: str, *, total: int | None = None) -> Iterator[Task]:
        """Show a task's label, state, elapsed time and, if the size is known, a bar."""
        from rich import progress as rich_progress
        from rich.markup import escape

        columns: list[rich_progress.ProgressColumn] = [
            rich_progress.SpinnerColumn(),
            rich_progress.TextColumn("{task.description}"),
        ]
        if total:
            columns += [
                rich_progress.BarColumn(),
                rich_progress.DownloadColumn(binary_units=True),
                rich_progress.TransferSpeedColumn(),
                rich_progress.TimeRemainingColumn(),
            ]
        columns += [
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("{task.fields[outlook]}"),
        ]
        bar = rich_progress.Progress(*columns, console=self._console, transient=True)
        with bar:
            number = bar.add_task(escape(printable(label)), total=total, outlook="")
            yield _LiveTask(bar, number, label)


class _LiveTask:
    def __init__(self, bar: object, number: object, label: str) -> None:
        self._bar, self._number, self._label = bar, number, label

    def update(
        self, done: int | None = None, text: str | None = None, outlook: str | None = None
    ) -> None:
        from rich.markup import escape

        if done is not None:
            self._bar.update(self._number, completed=done)  # type: ignore[attr-defined]
        if text is not None:
            shown = escape(printable(f"{self._label}: {text}"))
            self._bar.update(self._number, description=shown)  # type: ignore[attr-defined]
        if outlook is not None:
            self._bar.update(self._number, outlook=escape(printable(outlook)))  # type: ignore[attr-defined]
