"""Run functions at the same time, each in a process of its own.

A call into libvirt cannot be interrupted, and libvirt's connections start ssh. A process can be
ended with all that it started, so one that hangs delays nothing beyond its timeout. Each process
has a session of its own: Ctrl-C reaches only the caller, which lets the others clean up, and ssh
does not ask on the terminal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from armvm.base.errors import ArmvmError, HostError
from armvm.base.signals import ENDING

#: Passes a value to the caller while the function runs.
Send: TypeAlias = Callable[[Any], None]
Work: TypeAlias = Callable[[Send], Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a function returned, or why it failed."""

    value: Any = None
    error: ArmvmError | None = None


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """A process's last message. ``crash`` is the traceback of a bug."""

    outcome: Outcome
    crash: str | None = None


@dataclass(kw_only=True)
class _Worker:
    key: str
    pid: int
    receiver: Any
    deadline: float


def run_all(
    work: Mapping[str, Work],
    *,
    timeout: float | None = None,
    parallel: int | None = None,
    patience: float = 0,
    heard: Callable[[str, Any], None] | None = None,
    ended: Callable[[str, Outcome], None] | None = None,
) -> dict[str, Outcome]:
    """Run the functions and return their outcomes, in the order of *work*.

    *timeout* is in seconds, for each function: one that takes longer is killed, and its error is a
    HostError. At most *parallel* run at once; None: all. *heard* receives what a function sends,
    *ended* each outcome when it is there. Values are pickled.

    If the call is interrupted, or one of the callbacks raises, each process receives SIGTERM and
    has *patience* seconds to clean up before it is killed.
    """
    from multiprocessing import connection

    waiting = deque(work)
    running: list[_Worker] = []
    found: dict[str, Outcome] = {}

    def end(worker: _Worker, outcome: Outcome) -> None:
        running.remove(worker)
        found[worker.key] = outcome
        if ended is not None:
            ended(worker.key, outcome)

    try:
        while waiting or running:
            while waiting and (parallel is None or len(running) < parallel):
                key = waiting.popleft()
                running.append(_start(key, work[key], timeout))
            left = min(one.deadline for one in running) - time.monotonic()
            ready = connection.wait(
                [one.receiver for one in running], None if timeout is None else max(0.0, left)
            )
            for worker in list(running):
                if worker.receiver in ready:
                    message = _receive(worker)
                    if isinstance(message, _Ended):
                        if message.crash is not None:
                            raise RuntimeError(f"{worker.key}: {message.crash}")
                        _finish(worker)
                        end(worker, message.outcome)
                    elif heard is not None:
                        heard(worker.key, message)
                elif time.monotonic() >= worker.deadline:
                    _kill(worker)
                    end(worker, Outcome(error=HostError(f"timed out after {timeout:g} s")))
    finally:
        _end_all(running, patience)
    return {key: found[key] for key in work}


def _start(key: str, function: Work, timeout: float | None) -> _Worker:
    from multiprocessing import connection

    receiver, sender = connection.Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal now would unwind the caller's code in both processes.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        pid = os.fork()
        if pid == 0:
            _run(function, sender, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.close()
    deadline = float("inf") if timeout is None else time.monotonic() + timeout
    return _Worker(key=key, pid=pid, receiver=receiver, deadline=deadline)


def _run(function: Work, sender: Any, signals: Iterable[int]) -> NoReturn:
    """Run a function in the new process and end it, without the caller's own cleanup."""
    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        try:
            last = _Ended(outcome=Outcome(value=function(sender.send)))
        except ArmvmError as error:
            last = _Ended(outcome=Outcome(error=_public(error)))
        except Exception:
            last = _Ended(outcome=Outcome(), crash=traceback.format_exc())
        sender.send(last)
        code = 0
    except BaseException:  # interrupted, or the caller is gone: nobody reads an answer
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _public(error: ArmvmError) -> ArmvmError:
    """Return an error as one of armvm.base.errors: other classes may not survive pickling."""
    public = next(one for one in type(error).__mro__ if one.__module__ == ArmvmError.__module__)
    told: ArmvmError = public(error.message, detail=error.detail, hint=error.hint)
    return told


def _receive(worker: _Worker) -> Any:
    try:
        return worker.receiver.recv()
    except (EOFError, OSError):
        error = HostError(f"the process for {worker.key} ended unexpectedly")
        return _Ended(outcome=Outcome(error=error))


def _finish(worker: _Worker) -> None:
    """Wait for a process that sent its last message. What it left in the background stays."""
    with contextlib.suppress(ChildProcessError):  # waited for when a signal came
        os.waitpid(worker.pid, 0)
    worker.receiver.close()


def _kill(worker: _Worker) -> None:
    """End a process and all that it started, and wait for it."""
    for end in (os.killpg, os.kill):  # it may not lead its group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(worker.pid, signal.SIGKILL)
    _finish(worker)


def _end_all(running: list[_Worker], patience: float) -> None:
    """End processes: SIGTERM, and SIGKILL after *patience* seconds."""
    if patience:
        for worker in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGTERM)
        end = time.monotonic() + patience
        for worker in running:
            while _runs(worker) and time.monotonic() < end:
                time.sleep(0.05)
    for worker in running:
        _kill(worker)


def _runs(worker: _Worker) -> bool:
    try:
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, worker.pid, how) is None
    except ChildProcessError:
        return False
