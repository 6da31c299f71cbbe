"""The background process of ``armvm accelerate``: serves one guest's compile steps.

It listens on a socket that only its user can open. ssh forwards a port of the guest's loopback
address to that socket, so nothing listens on the host's network, and only this guest gets there.
The process ends with that ssh connection: when the guest stops, restarts, or cannot be reached.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import resource
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Sequence
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
#: Most lines of the log: the guest decides how many steps there are.
MOST_LINES = 10_000
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
    settings: dict[str, Any] = json.loads((directory / SETTINGS).read_text())
    ssh = settings.pop("ssh")
    compilers = Compilers(**settings)
    store = Store(directory=directory / "store")
    store.directory.mkdir()
    slots = threading.Semaphore((os.cpu_count() or 1) + 1)
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
            threading.Thread(
                target=_accept, args=(listening, compilers, store, slots, free), daemon=True
            ).start()
            _, status = os.waitpid(child, 0)
            print(f"ssh ended with exit code {os.waitstatus_to_exitcode(status)}", flush=True)
        finally:
            if child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
            shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)  # without waiting for threads whose compilers end with this process


def _accept(
    listening: socket.socket,
    compilers: Compilers,
    store: Store,
    slots: threading.Semaphore,
    free: threading.Semaphore,
) -> None:
    lines = itertools.count()

    def log(text: str) -> None:
        if next(lines) < MOST_LINES:
            print(text, flush=True)

    def work(connection: socket.socket) -> None:
        try:
            serve(connection, compilers, store, slots, log)
        finally:
            free.release()

    while True:
        free.acquire()
        try:
            connection, _ = listening.accept()
        except OSError:
            return  # closed: the service ends
        threading.Thread(target=work, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    serve_guest(Path(sys.argv[1]))
