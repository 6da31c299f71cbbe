"""Ending a program that was started: asked first, then killed."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

#: Seconds that a program has to end after it was asked to.
PATIENCE = 10.0


def terminate(process: Any) -> None:
    """End a program and wait for it: ssh has the terminal to set right."""
    import subprocess

    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill(process: Any) -> None:
    """End a process that leads its own session, with its children: asked first, then killed."""
    import subprocess

    try:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        # The leader may have gone before its children: the group lives as long as one of them.
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nothing is left, or nothing that is ours
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)


def end_with_pipes(process: Any) -> None:
    """End a process and its children, and close its pipes."""
    kill(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
