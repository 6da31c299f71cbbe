"""Standard output as it may be: without some characters, full, or closed."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

from armvm.base.errors import OutputFailed


class _Output(io.BufferedWriter):
    """Standard output's buffer; an error in writing it cannot be taken for any other.

    The file below is Python's own: a signal that comes in just after a write must not leave in
    the buffer what was written.
    """

    def write(self, data: Any) -> int:
        """Write bytes. Raises OutputFailed, or BrokenPipeError when the reader has left."""
        with _told():
            return super().write(data)

    def flush(self) -> None:
        """Write what is left. Raises as `write` does."""
        with _told():
            super().flush()


class _Trouble(io.BufferedWriter):
    """Standard error's buffer: where it cannot be written, nobody can be told, and work goes on."""

    def write(self, data: Any) -> int:
        """Write bytes as far as they can be written."""
        try:
            return super().write(data)
        except OSError:
            return self._lost(len(data))

    def flush(self) -> None:
        """Write what is left as far as it can be written."""
        try:
            super().flush()
        except OSError:
            self._lost(0)

    def _lost(self, count: int) -> int:
        """Send what is still to be written nowhere, from now on."""
        _nowhere(self.fileno())
        super().flush()
        return count


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(
            f"standard output cannot be written: {error.strerror}",
            hint="the command may have done its work: look before you run it again",
        ) from error


def prepare() -> None:
    """Make the standard streams such that every command can use them."""
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        _occupy(number, mode)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(
        _Trouble(io.FileIO(2, "w", closefd=False)),
        encoding=sys.stderr.encoding if sys.stderr else None,
        errors="backslashreplace",
        line_buffering=True,
    )
    sys.stdout = io.TextIOWrapper(
        _Output(io.FileIO(1, "w", closefd=False)),
        encoding=sys.stdout.encoding if sys.stdout else None,
        errors="replace",  # a character that the terminal lacks is no reason to fail
        line_buffering=os.isatty(1),
    )


def discard() -> None:
    """Send what is still to be written nowhere, so that Python's end has no error to tell."""
    _nowhere(1)
    with contextlib.suppress(Exception):
        sys.stdout.flush()


def _nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def output(data: bytes) -> None:
    """Write all of *data* to standard output now. Raises OutputFailed, BrokenPipeError."""
    with _told():
        _write(1, data)


def trouble(data: bytes) -> None:
    """Write all of *data* to standard error now, as far as that takes it."""
    with contextlib.suppress(OSError):
        _write(2, data)


def _write(number: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(number, data) :]
        except BlockingIOError:  # a program that has the same file may have made it so, as ssh does
            select.select([], [number], [])


def _occupy(number: int, mode: int) -> None:
    """Open a descriptor that is closed, or the next file would get it and all that is printed.

    Standard output is opened for reading: to write it fails, as when it was closed.
    """
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, mode)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
