"""Attach to a machine's console: show earlier output first, and attach again after each stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from armvm.base.errors import ArmvmError, Conflict, DomainError, UsageError
from armvm.base.poll import until
from armvm.guest.boot.scrollback import Joined, Skip, join
from armvm.host import connection as connecting
from armvm.host.console import stream, terminal
from armvm.host.console.console_size import Sizer
from armvm.host.console.stream import End, Line
from armvm.host.console.terminal import Keyboard, Wake
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import find_domain
from armvm.provision.machine.pick import pick

#: Seconds to collect new output, which is then located in the log.
_SETTLE = 0.3
#: Seconds until libvirt reports a stop, or a machine that starts has a console.
_GRACE = 5.0
_POLL = 0.3
#: Lines of a screen if the terminal does not report its size.
_SCREENFUL = 24


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How to attach. ``lines`` None shows the last screen on a terminal, and nothing on a pipe."""

    force: bool = False
    reattach: bool = True
    lines: int | None = None


def open_console(
    uri: str | None,
    name: str | None,
    terms: Terms,
    *,
    stdin: int | None,
    stdout: int | None,
    tell: Callable[[str], None],
) -> None:
    """Connect *stdin* and *stdout* to a machine's console until the user leaves.

    *tell* receives status messages. If the machine stops while a terminal is attached, armvm waits
    for it to start again. Raises UsageError if standard input or output is closed, Conflict if
    another client has the console or takes it over, DomainError if the machine is not running or
    stops before it has received all input from a pipe, and the errors of `pick`.
    """
    stream.start_event_loop()  # before the connection is opened
    connection = connecting.connect(uri)
    stream.keep_alive(connection)
    machine = pick(connection, name)
    stream.check_running(machine.domain)
    if stdout is None:
        raise UsageError("the console needs standard output, which is closed")
    if stdin is None or terminal.is_nothing(stdin):
        raise UsageError(
            "the console needs standard input, which is closed or /dev/null",
            hint=f"run it on a terminal, or pipe input to it: echo 'uname -m' | armvm console "
            f"{machine.name}; to read without typing: armvm logs --follow {machine.name}",
        )
    keyboard = Keyboard(stdin)
    if terms.lines is None:
        screen = terminal.size(stdout)
        shown = (screen[0] - 1 if screen else _SCREENFUL) if keyboard.interactive else 0
        terms = replace(terms, lines=shown)
    if keyboard.interactive:
        tell(f"Connected to {machine.name}. Press Ctrl-] to leave, Return to get a prompt.")
    attached = _Attached(machine, terms, keyboard, stdout, tell)
    sizer = Sizer(machine.domain, lambda: terminal.size(stdin))
    with ExitStack() as stack:
        if keyboard.interactive:
            stack.enter_context(terminal.raw(stdin))
            stack.callback(attached.restore)
            stack.enter_context(sizer.running())
            stack.enter_context(_on_resize(sizer.changed))
        attached.run()


@contextlib.contextmanager
def _on_resize(changed: Callable[[], None]) -> Iterator[None]:
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: changed())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


class _Attached:
    """An attached console, kept through the machine's stops and starts."""

    def __init__(
        self,
        machine: Handle,
        terms: Terms,
        keyboard: Keyboard,
        target: int,
        tell: Callable[[str], None],
    ) -> None:
        self._machine, self._terms = machine, terms
        self._keyboard, self._target, self._tell = keyboard, target, tell
        self._wake, self._modes = Wake(), terminal.Modes()
        self._skip = Skip(b"")
        self._again = False

    def run(self) -> None:
        """Attach until the user leaves, or the machine stops and armvm does not wait for it."""
        force, before = self._terms.force, self._log()
        end: End | None = None
        while True:
            run = stream.run_of(self._machine.domain)
            with self._open(force) as line:
                if end is End.SILENT:  # continue without showing earlier output again
                    self._see(line.take())
                else:
                    self._begin(line, before)
                end = stream.talk(line, self._keyboard, self._wake, self._see)
                unsent = line.waiting or (self._keyboard.open and not self._keyboard.interactive)
            if end is End.LEFT:
                return
            if end is End.SILENT:  # opening it again shows whether another client has it
                force, self._again = False, True
                continue
            self._check_stopped(run)
            if not self._keyboard.interactive and unsent:
                raise DomainError(f"{self._machine.name} stopped before all input was sent")
            if not (self._keyboard.interactive and self._terms.reattach):
                self._say(f"{self._machine.name} has stopped")
                return
            self._say(
                f"{self._machine.name} has stopped; waiting for it to start (Ctrl-] to leave)"
            )
            if not self._wait_for_start(run):
                return
            self._say(f"{self._machine.name} has started again")
            # The machine starts a new log, and the console's lock is free.
            force, before, self._again = False, b"", True

    def restore(self) -> None:
        """Reset the terminal modes that guest programs changed, and end the last line."""
        with contextlib.suppress(OSError):  # hung up
            _write_all(self._target, self._modes.undo() + b"\r\n")

    def _begin(self, line: Line, before: bytes) -> None:
        """Show the end of the log, and the output since the console was opened."""
        lines = self._terms.lines or 0
        received = b""
        if lines:
            end = time.monotonic() + _SETTLE
            while (left := end - time.monotonic()) > 0:
                self._wake.wait(timeout=left)
                received += line.take()
        log = self._log()
        found: Joined = join(before, log, received + line.take(), lines)
        text = found.text.replace("\n", "\r\n") if self._keyboard.interactive else found.text
        _write_all(self._target, text.encode())
        self._skip = Skip(found.again)
        if found.live:
            self._see(found.live)

    def _see(self, data: bytes) -> None:
        data = self._skip(data)
        self._modes.feed(data)
        _write_all(self._target, data)

    def _log(self) -> bytes:
        if not self._terms.lines:
            return b""
        return self._machine.log_tail()

    def _say(self, text: str) -> None:
        self._tell(f"\r\n[{text}]\r" if self._keyboard.interactive else text)

    @contextlib.contextmanager
    def _open(self, force: bool) -> Iterator[Line]:
        """Open the console; after a start, retry until it is ready."""
        with ExitStack() as stack:

            def opened() -> Line:
                return stack.enter_context(
                    stream.opened(self._machine.domain, self._wake, force=force)
                )

            def opened_by_now() -> Line | None:
                with contextlib.suppress(ArmvmError):
                    return opened()
                return None

            line = until(opened_by_now, timeout=_GRACE, interval=_POLL) if self._again else None
            yield line or opened()

    def _check_stopped(self, run: int | None) -> None:
        """Raise Conflict if the console was closed but the machine still runs."""
        if run is None:
            return
        until(
            lambda: stream.run_of(self._machine.domain) != run,
            timeout=_GRACE,
            interval=_POLL,
            late=lambda: Conflict(
                f"another user or program took over the console of {self._machine.name}",
                hint="take it back with --force",
            ),
        )

    def _wait_for_start(self, run: int | None) -> bool:
        """Wait until the machine runs again; return False if the user leaves first.

        Raises NotFound if the machine is removed.
        """

        def runs_or_user_left() -> bool:
            if stream.run_of(self._machine.domain) not in (None, run):
                return True
            find_domain(self._machine.connection, self._machine.name)
            return not self._keyboard.open

        def listen(seconds: float) -> None:
            if self._wake.wait(self._keyboard.descriptor, timeout=seconds):
                self._keyboard.read()

        until(runs_or_user_left, timeout=None, interval=_POLL, sleep=listen)
        return self._keyboard.open


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
