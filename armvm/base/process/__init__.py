"""Run other programs. Only this package starts processes.

Commands are lists of arguments; there is no shell. ``subprocess`` is imported late, because
``armvm --help`` and shell completion do not need it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from armvm.base.errors import CommandFailed
from armvm.base.limits import Limits
from armvm.base.process.ending import PATIENCE, end_with_pipes, kill
from armvm.base.process.relay import relay
from armvm.base.process.terminal import passthrough
from armvm.base.programs import find, search_path

__all__ = [
    "Completed",
    "detach",
    "into_background",
    "passthrough",
    "relay",
    "replace",
    "run",
    "stream",
]

T = TypeVar("T")

#: Maximum length of a failed program's output in an error, in characters.
TAIL = 2000
#: Maximum output of a program that passes on what a guest says, in bytes (`run`'s *most*).
ANSWER = 16 << 20
#: Maximum length of a line that is passed on, in bytes; a longer one is passed on in parts.
LINE = 8192


@dataclass(frozen=True, kw_only=True)
class Completed:
    """The result of a program: exit code (negative for a signal) and output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; invalid UTF-8 is replaced."""
        return self.stdout.decode(errors="replace")


def run(
    argv: Sequence[str | Path],
    *,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
    limits: Limits | None = None,
    most: int | None = None,
) -> Completed:
    """Run a program to its end and return its result.

    *timeout* is in seconds. *env* is added to the environment. With *on_line* (not together with
    *input*), standard output and standard error are joined, and each line is passed on as it
    arrives. *limits* apply to the program and its children. *most* (not together with *input*) is
    the maximum output in bytes. If the call ends early (timeout, Ctrl-C), the program and its
    children are ended too.

    Raises MissingCapability if the program is not installed, CommandFailed if it fails (unless
    *check* is false), times out, or writes more than *most*.
    """
    import subprocess

    words = [find(str(argv[0])), *map(str, argv[1:])]
    process = subprocess.Popen(
        [find("prlimit"), *limits.options, "--", *words] if limits else words,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if on_line else subprocess.PIPE,
        env={**os.environ, "PATH": search_path(), **(limits.env if limits else {}), **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        if on_line:
            out, err = _follow(process, on_line, timeout), b""
        elif most is not None:
            out, err = _collect(process, timeout, most)
        else:
            out, err = process.communicate(input, timeout=timeout)
    except BaseException as error:
        end_with_pipes(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandFailed(f"timed out after {timeout:g} s: {words[0]}") from error
        raise
    done = Completed(argv=tuple(words), returncode=process.returncode, stdout=out, stderr=err)
    if check and done.returncode != 0:
        tail = (err or out).decode(errors="replace").strip()[-TAIL:]
        raise CommandFailed(
            f"{Path(words[0]).name} failed with exit code {done.returncode}", detail=tail or None
        )
    return done


def detach(argv: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None) -> int:
    """Start a program that keeps running after this one, and return its process id.

    It gets a session of its own, so that neither Ctrl-C nor a closed terminal reaches it. Its
    input is empty, and its output is appended to *log*, which only the owner can read. *env* is
    added to the environment. Raises MissingCapability if the program is not installed, OSError.
    """
    words = [find(str(argv[0])), *map(str, argv[1:])]
    defaults = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
    return os.posix_spawn(
        words[0],
        words,
        {**os.environ, "PATH": search_path(), **(env or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=defaults,
    )


def into_background(
    argv: Sequence[str | Path], *, timeout: float | None = None, own_session: bool = False
) -> Completed:
    """Run a program that moves itself to the background once it is ready (``ssh -f``).

    It may use the caller's terminal before that. With *own_session*, it and its children have no
    terminal, and Ctrl-C there never reaches them. Its output goes to a file, because a pipe would
    close when armvm ends. *timeout* is in seconds. Raises MissingCapability if the program is not
    installed, CommandFailed if it times out.
    """
    import subprocess
    import tempfile

    words = [find(str(argv[0])), *map(str, argv[1:])]
    with tempfile.TemporaryFile() as trouble:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=trouble,
                check=False,
                timeout=timeout,
                start_new_session=own_session,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"timed out after {timeout:g} s: {words[0]}") from error
        said = _end_of(trouble)
    return Completed(argv=tuple(words), returncode=done.returncode, stdout=b"", stderr=said)


def replace(argv: Sequence[str | Path]) -> NoReturn:
    """Replace this process by another program, with default signal handlers.

    Raises MissingCapability if the program is not installed, OSError.
    """
    words = [find(str(argv[0])), *map(str, argv[1:])]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.execv(words[0], words)  # noqa: S606 - no shell needed


def stream(
    argv: Sequence[str | Path],
    feed: Callable[[IO[bytes]], object],
    drain: Callable[[IO[bytes]], T],
) -> T:
    """Run a program: *feed* writes its input, *drain* reads its output. Return *drain*'s result.

    Raises what they raise (*feed* may fail to write if the program stops reading), CommandFailed
    if the program fails. If the call ends early, the program is ended too.
    """
    import subprocess
    import tempfile
    import threading

    words = [find(str(argv[0])), *map(str, argv[1:])]
    with tempfile.TemporaryFile() as trouble:
        process: Any = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=trouble,
            start_new_session=True,
        )
        failures: list[Exception] = []

        def write() -> None:
            try:
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    feed(process.stdin)
            except Exception as error:
                failures.append(error)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        try:
            result = drain(process.stdout)
            writer.join()
            process.stdout.close()
            code = process.wait()
        except BaseException:
            kill(process)
            process.stdout.close()
            writer.join(PATIENCE)
            raise
        if failures:
            raise failures[0]
        if code != 0:
            tail = _end_of(trouble).decode(errors="replace").strip()[-TAIL:]
            raise CommandFailed(
                f"{Path(words[0]).name} failed with exit code {code}", detail=tail or None
            )
        return result


def _end_of(file: IO[bytes]) -> bytes:
    """Return the end of a program's messages, with which a guest may fill a file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - ANSWER))
    return file.read()


def _collect(process: Any, timeout: float | None, most: int) -> tuple[bytes, bytes]:
    """Return a process's two outputs. Raises CommandFailed for more than *most* bytes."""
    import selectors
    import subprocess
    import time

    end = None if timeout is None else time.monotonic() + timeout
    found = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as open_ones:
        for pipe in found:
            open_ones.register(pipe, selectors.EVENT_READ)
        while open_ones.get_map():
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(process.args, timeout or 0.0)
            for key, _ in open_ones.select(left):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    open_ones.unregister(key.fileobj)
                found[key.fileobj] += data
                if sum(map(len, found.values())) > most:
                    raise CommandFailed(f"{process.args[0]} wrote more than {most} bytes")
    process.wait(None if end is None else max(0.0, end - time.monotonic()))
    for pipe in found:
        pipe.close()
    return bytes(found[process.stdout]), bytes(found[process.stderr])


def _follow(process: Any, on_line: Callable[[str], None], timeout: float | None) -> bytes:
    """Pass on a process's lines as they arrive; return the last of them."""
    import subprocess
    import threading

    kept: list[bytes] = []
    late = threading.Event()

    def end() -> None:
        late.set()
        kill(process)

    timer = threading.Timer(timeout, end) if timeout is not None else None
    if timer is not None:
        timer.start()
    try:
        with process.stdout as lines:
            while line := lines.readline(LINE):
                kept.append(line)
                del kept[:-200]
                on_line(line.decode(errors="replace").rstrip("\n"))
        process.wait()
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()
    if late.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout or 0.0)
    return b"".join(kept)
