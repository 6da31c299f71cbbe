"""Run a command in a clone through armvm's own channel, without network, key or ssh server.

`armvm.guest.agents.command_server` is the other end, and documents the protocol. What the guest
sends is untrusted: the length of a frame is limited, and only outputs and an exit code are read.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

from armvm.base.errors import ArmvmError, CommandFailed, Conflict, NotFound, NotReady
from armvm.guest.agents.command_script import check_words
from armvm.guest.agents.command_server import COUNT, HEADER, LENGTH, MARK, PIECE, SIZE, WINDOW
from armvm.host.agent import channel
from armvm.host.console import terminal
from armvm.host.console.terminal import Wake
from armvm.host.domain.handle import Handle
from armvm.settings.names import shown

#: Writes a command's input to a file and returns.
Feed = Callable[[IO[bytes]], object]
#: Receives some bytes of an output.
Sink = Callable[[bytes], object]

#: Seconds for the guest to start a command. A busy emulated guest needs a few.
START = 60.0
#: Seconds between two checks that the guest has the channel open.
_CHECK = 3.0
#: The longest first line and the longest frame that are read, in bytes.
_LONGEST_LINE, _LONGEST_FRAME = 4096, 1 << 16
#: What reading an answer of another form raises.
_ODD = (ValueError, LookupError, TypeError, AttributeError, OverflowError)


class NoDisk(NotReady):
    """The guest did not find the disk that carries a command's input or output."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command for a guest: its words, who runs it and where, and the terminal that it gets.

    ``directory`` is relative to the user's home. ``variables`` are added to those of a login.
    ``rows`` and ``columns`` of 0 mean no terminal. ``disk`` is the serial number of a disk that is
    plugged in: the command's input, or with ``output`` its output.
    """

    words: Sequence[str]
    user: str
    directory: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    columns: int = 0
    term: str = ""
    disk: str | None = None
    output: bool = False

    def request(self) -> bytes:
        """Return the line that asks for it."""
        wanted = {
            "command": list(self.words),
            "user": self.user,
            "cwd": self.directory,
            "env": dict(self.variables),
            "tty": [self.rows, self.columns] if self.rows else None,
            "term": self.term,
            "disk": self.disk,
            "output": self.output,
        }
        return MARK + json.dumps(wanted).encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class Way:
    """Whether a machine's channels can be used. *reason* says why not, if it is worth telling."""

    usable: bool
    reason: str | None = None


def way(machine: Handle) -> Way:
    """Return whether a process in a running machine waits for commands.

    Only clones have channels, and only until they are stopped.
    """
    found = channel.states(machine.domain)
    if any(found.values()):
        return Way(usable=True)
    lost = f"the clone agent in {machine.name} has ended (a reboot ends it)" if found else None
    return Way(usable=False, reason=lost)


def feed_from(descriptor: int | None) -> Feed | None:
    """Return the feed that sends a file's bytes; None without a file."""
    if descriptor is None:
        return None

    def feed(out: IO[bytes]) -> None:
        while data := os.read(descriptor, PIECE):
            out.write(data)

    return feed


def on_terminal(
    machine: Handle, command: Command, *, stdin: int, stdout: int, timeout: float | None = None
) -> int:
    """Run a command with a terminal in the guest, attached to the caller's; return its exit code.

    Every key goes to the guest, Ctrl-C too. Raises the errors of `execute`.
    """
    wake, begun = Wake(), terminal.size(stdin) or (24, 80)
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: wake())
    try:
        with terminal.raw(stdin):
            return execute(
                machine,
                replace(command, rows=begun[0], columns=begun[1], term=os.environ.get("TERM", "")),
                feed=feed_from(stdin),
                stdout=lambda data: write_all(stdout, data),
                stderr=lambda _data: None,
                timeout=timeout,
                size=lambda: terminal.size(stdin),
                wake=wake,
            )
    finally:
        signal.signal(signal.SIGWINCH, before)


def execute(
    machine: Handle,
    command: Command,
    *,
    feed: Feed | None,
    stdout: Sink,
    stderr: Sink,
    timeout: float | None = None,
    size: Callable[[], tuple[int, int] | None] | None = None,
    wake: Wake | None = None,
    on_disk: Callable[[int], object] | None = None,
) -> int:
    """Run a command in a clone and return its exit code (128 + n: signal n).

    *feed* runs in a thread and writes the input; None means no input. *stdout* and *stderr* get the
    outputs as they arrive. With a terminal, *size* is asked for its rows and columns whenever
    *wake* is called. *on_disk* gets the number of bytes of output that the command wrote to its
    disk. An error, a signal or the end of *timeout* seconds (CommandFailed) ends the
    call and the command.

    Raises Conflict if all channels are in use, NotReady if the guest does not start the command,
    NoDisk if the guest does not find its disk, NotFound for an unknown user, ConfigError for an
    invalid argument, and what *feed*, *stdout* or *stderr* raise.
    """
    check_words(command.words)
    with _channel(machine) as (name, stream):
        return converse(
            stream,
            machine.name,
            command,
            feed=feed,
            stdout=stdout,
            stderr=stderr,
            timeout=timeout,
            size=size,
            wake=wake,
            on_disk=on_disk,
            alive=lambda: channel.states(machine.domain).get(name, False),
        )


def converse(
    stream: Any,
    name: str,
    command: Command,
    *,
    feed: Feed | None,
    stdout: Sink,
    stderr: Sink,
    timeout: float | None = None,
    size: Callable[[], tuple[int, int] | None] | None = None,
    wake: Wake | None = None,
    on_disk: Callable[[int], object] | None = None,
    alive: Callable[[], bool] = lambda: True,
) -> int:
    """Run a command of the machine *name* over an open channel; see `execute`.

    *alive* tells whether the guest still has the channel open: libvirt's stream does not end when
    the guest reboots.
    """
    end = None if timeout is None else time.monotonic() + timeout
    talk = _Talk(stream, name, command, stdout, stderr, wake or Wake(), alive, on_disk)
    talk.send(command.request())
    threading.Thread(target=talk.hear, name="output", daemon=True).start()
    talk.wait_until(lambda: talk.pid is not None, time.monotonic() + START, talk.silent)
    if feed is not None:
        threading.Thread(target=talk.feed, args=(feed,), name="input", daemon=True).start()
    else:
        talk.put(b"i", b"")
    last = (command.rows, command.columns)

    def over() -> bool:
        nonlocal last
        now = size() if size is not None else None
        if now is not None and now != last:
            last = now
            talk.put(b"w", SIZE.pack(*now))
        return talk.code is not None

    talk.wait_until(
        over,
        end,
        lambda: CommandFailed(
            f"timed out after {timeout:g} s: the command was stopped",
            hint="set a longer limit with --timeout",
        ),
    )
    return talk.code or 0


@contextlib.contextmanager
def _channel(machine: Handle) -> Iterator[tuple[str, Any]]:
    """Open a channel that nobody uses; yield its name and stream. Raises Conflict."""
    with contextlib.ExitStack() as stack:
        for name, connected in channel.states(machine.domain).items():
            if connected:
                with contextlib.suppress(Conflict):
                    stream = stack.enter_context(
                        channel.opened(machine.connection, machine.domain, name, force=False)
                    )
                    yield name, stream
                    return
        raise Conflict(f"all channels of {machine.name} are in use")


class _Talk:
    """A command's conversation. `hear` and `feed` run in threads; the main thread waits."""

    def __init__(
        self,
        stream: Any,
        name: str,
        command: Command,
        stdout: Sink,
        stderr: Sink,
        wake: Wake,
        alive: Callable[[], bool],
        on_disk: Callable[[int], object] | None,
    ) -> None:
        self.pid: int | None = None
        self.code: int | None = None
        self._stream, self._name, self._command, self._wake = stream, name, command, wake
        self._on_disk = on_disk
        self._sinks = {b"o": stdout, b"e": stderr}
        self._failure: BaseException | None = None
        self._sending = threading.Lock()
        self._room = threading.Condition()
        self._credit = WINDOW
        self._received = bytearray()
        self._alive = alive
        self._checked = time.monotonic()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        with self._sending:
            sent = channel.send(self._stream, data)
        if not sent and self.code is None:
            raise self._closed()

    def put(self, kind: bytes, data: bytes) -> None:
        """Send a frame."""
        self.send(HEADER.pack(kind, len(data)) + data)

    def wait_until(
        self, done: Callable[[], bool], end: float | None, late: Callable[[], ArmvmError]
    ) -> None:
        """Wait for *done*. Raises what a thread raised, or *late*'s error after the time *end*."""
        while not done():
            if self._failure is not None:
                raise self._failure
            left = _CHECK if end is None else min(_CHECK, end - time.monotonic())
            if left <= 0:
                raise late()
            self._wake.wait(timeout=left)
            if time.monotonic() - self._checked > _CHECK:
                self._checked = time.monotonic()
                if not self._alive() and not done():
                    raise self._closed()

    def silent(self) -> NotReady:
        """Return the error for a guest that does not start the command."""
        return NotReady(f"timed out after {START:g} s: {self._name} did not start the command")

    def hear(self) -> None:
        """Read the answer and the frames until the end of the command."""
        try:
            self._read_answer()
            self._wake()
            while self.code is None:
                self._read_frame()
        except BaseException as error:  # raised again in the main thread
            self._failure = error
        finally:
            with self._room:
                self._room.notify_all()
            self._wake()

    def feed(self, write: Feed) -> None:
        """Send the input that *write* writes, and its end."""
        try:
            with contextlib.suppress(BrokenPipeError):
                write(_Input(self))  # type: ignore[arg-type]
                self.put(b"i", b"")
        except BaseException as error:  # raised again in the main thread
            if self.code is None:
                self._failure = error
                self._wake()

    def write(self, data: bytes) -> None:
        """Send input as the command reads it. Raises BrokenPipeError when the command has ended."""
        view = memoryview(data)
        while view:
            with self._room:
                while self._credit <= 0 and self.code is None and self._failure is None:
                    self._room.wait()
                if self.code is not None or self._failure is not None:
                    raise BrokenPipeError
                part = view[: min(PIECE, self._credit)]
                self._credit -= len(part)
            self.put(b"i", bytes(part))
            view = view[len(part) :]

    def _read_answer(self) -> None:
        while b"\n" not in self._received:
            if len(self._received) > _LONGEST_LINE:
                raise self._invalid()
            self._receive()
        end = self._received.index(b"\n")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            answer = json.loads(line)
            if answer.get("error") == "user":
                user = shown(self._command.user)
                raise NotFound(f"user {user} not found in {self._name}")
            if answer.get("error") == "disk" or (self._command.disk and not answer.get("disk")):
                raise NoDisk(f"{self._name} did not find the disk that was plugged in")
            self.pid = int(answer["pid"])
        except (*_ODD, RecursionError) as error:
            raise self._invalid() from error

    def _read_frame(self) -> None:
        kind, length = HEADER.unpack(self._take(HEADER.size))
        if length > _LONGEST_FRAME:
            raise self._invalid()
        data = self._take(length)
        if kind in self._sinks:
            self._sinks[kind](data)
            self.put(b"a", COUNT.pack(length))
        elif kind == b"a" and length == COUNT.size:
            with self._room:
                self._credit = min(WINDOW, self._credit + COUNT.unpack(data)[0])
                self._room.notify_all()
        elif kind == b"d" and length == LENGTH.size and self._on_disk is not None:
            self._on_disk(LENGTH.unpack(data)[0])
        elif kind == b"x" and length == 1:
            self.code = data[0]
        else:
            raise self._invalid()

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _receive(self) -> None:
        part = channel.receive(self._stream)
        if not part:
            raise self._closed()
        self._received += part

    def _closed(self) -> CommandFailed:
        return CommandFailed(
            f"the channel to {self._name} was closed before the command ended",
            hint=f"the machine may have stopped or restarted: armvm show {self._name}",
        )

    def _invalid(self) -> CommandFailed:
        return CommandFailed(f"{self._name} sent an invalid answer")


class _Input:
    """The file that `Feed` writes to."""

    def __init__(self, talk: _Talk) -> None:
        self._talk = talk

    def write(self, data: bytes) -> int:
        """Send some input."""
        self._talk.write(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: `write` has sent everything."""


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of *data* to a file descriptor."""
    while data:
        data = data[os.write(descriptor, data) :]
