"""The background process of ``armvm accelerate``: serves one guest's compile steps.

It listens on a socket that only its user can open. ssh forwards a port of the guest's loopback
address to that socket, so nothing listens on the host's network, and only this guest gets there.
The process ends with that ssh connection: when the guest stops, restarts, or cannot be reached.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from armvm.base import process, programs
from armvm.base.programs import find
from armvm.provision.accelerate.job import Compilers, serve
from armvm.provision.accelerate.sandbox import MEMORY
from armvm.provision.accelerate.store import Store

#: Most connections of a guest at a time; further ones wait.
MOST = 64
#: Most bytes of the log, and most characters of a line: the guest decides what is in it.
MOST_LOGGED, LONGEST_LINE = 2 << 20, 500
#: Most open files: those of each connection, and the directories of a tree that is removed.
FILES = 16_384
#: Seconds before the next connection if one was not served.
_PAUSE = 0.1
#: The files in a service's directory: see `start` and `serve_guest`.
SOCKET, PID, SETTINGS = "s", "pid", "settings.json"


def start(directory: Path, ssh: Sequence[str], compilers: Compilers, log: Path) -> int:
    """Start the process in the background and return its id.

    *directory* is new, and only for this service; *ssh* the command that forwards the guest's port
    to its socket. Raises OSError.
    """
    settings = {"ssh": list(ssh), **asdict(compilers)}
    (directory / SETTINGS).touch(mode=0o600)
    (directory / SETTINGS).write_text(json.dumps(settings))
    return process.detach(programs.own(directory, module=__name__), log)


def running(directory: Path) -> int | None:
    """Return the id of the process that serves in a directory; None if there is none."""
    try:
        with (directory / PID).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError, ValueError):
            return int((directory / PID).read_text())
    except OSError:
        pass
    return None


def serve_guest(directory: Path) -> None:
    """Serve until ssh ends or this process is asked to end; then remove the directory."""
    os.umask(0o022)  # the compilers of root's service run as another user
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    data = MEMORY if most == resource.RLIM_INFINITY else min(most, MEMORY)
    resource.setrlimit(resource.RLIMIT_DATA, (data, most))  # the guest may send anything
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = FILES if most == resource.RLIM_INFINITY else min(most, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    settings: dict[str, Any] = json.loads((directory / SETTINGS).read_text())
    ssh = settings.pop("ssh")
    compilers = Compilers(**settings)
    store = Store(directory=directory / "store")
    store.directory.mkdir()
    slots = threading.Semaphore((os.cpu_count() or 1) + 1)
    log = logger()
    threading.excepthook = lambda args: log(f"{args.exc_type.__name__}: {args.exc_value}")
    (directory / PID).touch(mode=0o600)  # another user could hold its lock
    with (directory / PID).open("w") as pid, socket.socket(socket.AF_UNIX) as listening:
        fcntl.flock(pid, fcntl.LOCK_EX)
        pid.write(f"{os.getpid()}\n")
        pid.flush()
        listening.bind(str(directory / SOCKET))
        (directory / SOCKET).chmod(0o600)
        listening.listen(MOST)
        child = None

        def end(_number: int, _frame: FrameType | None) -> None:
            raise SystemExit(0)

        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, end)
            # ssh ends with this process, even if this is killed.
            child = process.detach(
                [find("setpriv"), "--pdeathsig", "TERM", "--", *ssh], Path(os.devnull)
            )
            free = threading.Semaphore(MOST)

            def work(connection: socket.socket) -> None:
                serve(connection, compilers, store, slots, log)

            def accept_all() -> None:
                try:
                    accept(listening, free, work, log)
                finally:  # a service that does not answer would stop the guest's compilers
                    os.kill(os.getpid(), signal.SIGTERM)

            threading.Thread(target=accept_all, daemon=True).start()
            _, status = os.waitpid(child, 0)
            print(f"ssh ended with exit code {os.waitstatus_to_exitcode(status)}", flush=True)
        finally:
            if child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
            shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)  # without waiting for threads whose compilers end with this process


def logger() -> Callable[[str], None]:
    """Return a function that writes lines to standard output: short, printable, and not too many.

    It never raises.
    """
    left = MOST_LOGGED
    lock = threading.Lock()

    def log(text: str) -> None:
        nonlocal left
        shown = (
            one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text[:LONGEST_LINE]
        )
        line = f"{''.join(shown)}\n".encode()
        with lock:
            left -= len(line)
            if left >= 0:
                with contextlib.suppress(OSError):
                    os.write(1, line)

    return log


def accept(
    listening: socket.socket,
    free: threading.Semaphore,
    work: Callable[[socket.socket], None],
    log: Callable[[str], None],
) -> None:
    """Accept connections, and let *work* serve each in a thread. Without resources, close it."""

    def serve_one(connection: socket.socket) -> None:
        try:
            work(connection)
        finally:
            free.release()

    while listening.fileno() != -1:
        free.acquire()
        connection = None
        try:
            connection, _ = listening.accept()
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()
        except (OSError, RuntimeError, MemoryError) as error:  # no thread, file or memory is left
            free.release()
            if connection is not None:
                connection.close()
            log(f"a connection was not served: {error or 'no memory is left'}")
            time.sleep(_PAUSE)


if __name__ == "__main__":
    serve_guest(Path(sys.argv[1]))
