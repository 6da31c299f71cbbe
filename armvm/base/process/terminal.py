"""Run a program on the caller's terminal, with its signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from armvm.base.process.ending import terminate
from armvm.base.programs import find


def passthrough(
    argv: Sequence[str | Path], *, interruptible: bool = False, interrupt: float = 0
) -> int:
    """Run a program on the caller's own terminal, and return its exit code.

    Ctrl-C at the terminal reaches the program, as if it had been started from the shell. A SIGINT
    sent only to this process is passed on. With *interruptible*, SIGINT ends the call and the
    program, as SIGTERM does: for programs such as ssh, which end on SIGINT anyway. A program
    ended by signal n returns 128 + n. If the call ends early, the program receives SIGTERM; with
    *interrupt*, it receives SIGINT that many seconds before.
    """
    import subprocess

    words = [find(str(argv[0])), *map(str, argv[1:])]
    started: list[Any] = []
    early: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        if not started:
            early.append(number)
        elif not _terminal_interrupts():
            started[0].send_signal(number)

    before = signal.getsignal(signal.SIGINT)
    if not interruptible:
        signal.signal(signal.SIGINT, pass_on)
    try:
        process = subprocess.Popen(words)
        started.append(process)
        for number in early:
            process.send_signal(number)
        try:
            code = process.wait()
        except BaseException:
            terminate(process, interrupt=interrupt)
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _terminal_interrupts() -> bool:
    """Return whether Ctrl-C at our terminal sends SIGINT: then the whole foreground gets it."""
    import termios

    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        in_front = os.tcgetpgrp(terminal) == os.getpgrp()
        return in_front and bool(termios.tcgetattr(terminal)[3] & termios.ISIG)
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)
