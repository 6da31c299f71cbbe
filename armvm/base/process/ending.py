"""End a started program: SIGTERM first, then SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

#: Seconds between SIGTERM and SIGKILL.
PATIENCE = 10.0


def terminate(process: Any, *, interrupt: float = 0) -> None:
    """End a program and wait for it, so that ssh can restore the terminal.

    With *interrupt*, it receives SIGINT first and has that many seconds to clean up.
    """
    import subprocess

    steps = [(signal.SIGTERM, PATIENCE), (signal.SIGKILL, None)]
    for number, patience in ([(signal.SIGINT, interrupt)] if interrupt else []) + steps:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def kill(process: Any) -> None:
    """End a session leader and its children: SIGTERM first, then SIGKILL."""
    import subprocess

    try:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        # The leader may end before its children; the group exists until the last one ends.
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nothing is left, or what is left belongs to another user
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)


def end_with_pipes(process: Any) -> None:
    """End a process and its children, and close its pipes."""
    kill(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
