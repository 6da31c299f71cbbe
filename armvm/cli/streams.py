"""Standard streams that are closed, full, or cannot encode some characters."""

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
    """Standard output's buffer. Its write errors are distinct from all others.

    The file below is Python's own, so that a signal just after a write cannot leave written data
    in the buffer.
    """

    def write(self, data: Any) -> int:
        """Write bytes. Raises OutputFailed, or BrokenPipeError if the reader closed the pipe."""
        with _told():
            return super().write(data)

    def flush(self) -> None:
        """Write the buffered bytes. Raises the same errors as `write`."""
        with _told():
            super().flush()


class _Trouble(io.BufferedWriter):
    """Standard error's buffer. Ignores write errors, which cannot be reported; work continues."""

    def write(self, data: Any) -> int:
        """Write bytes; discard them if they cannot be written."""
        try:
            return super().write(data)
        except OSError:
            return self._lost(len(data))

    def flush(self) -> None:
        """Write the buffered bytes; discard them if they cannot be written."""
        try:
            super().flush()
        except OSError:
            self._lost(0)

    def _lost(self, count: int) -> int:
        """Redirect the stream to /dev/null and return *count*."""
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
            f"cannot write to standard output: {error.strerror}",
            hint="the command may have succeeded: check before you run it again",
        ) from error


def prepare() -> None:
    """Replace the standard streams with ones that every command can use."""
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
        errors="replace",  # do not fail on a character that the terminal lacks
        line_buffering=os.isatty(1),
    )


def discard() -> None:
    """Discard unwritten output, so that Python reports no error when it exits."""
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
    """Write all of *data* to standard error now; ignore errors."""
    with contextlib.suppress(OSError):
        _write(2, data)


def _write(number: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(number, data) :]
        except BlockingIOError:  # ssh, for one, makes the file that it shares non-blocking
            select.select([], [number], [])


def _occupy(number: int, mode: int) -> None:
    """Open a closed descriptor, so that no other file gets its number and the printed output.

    Standard output is opened for reading, so that writing to it fails as for a closed one.
    """
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, mode)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
