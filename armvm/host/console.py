"""The serial console: bytes between a machine's ttyAMA0 and the caller, through libvirt.

It works over any connection, since it uses libvirt's own stream. On a terminal, Ctrl-] leaves;
a pipe is passed through, and the end of input leaves after the guest has answered.
"""

from __future__ import annotations

import os
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from armvm.errors import Conflict, DomainError
from armvm.host.connection import Domain, errors

#: Ctrl-], the key that virsh and telnet use.
ESCAPE = b"\x1d"
#: Seconds to go on reading after a pipe's end.
LINGER = 2.0


def start_event_loop() -> None:
    """Give libvirt its event loop. It must be there before the connection is opened."""
    libvirt.virEventRegisterDefaultImpl()


def attach(
    domain: Domain, *, force: bool = False, stdin: int | None = None, stdout: int | None = None
) -> None:
    """Connect file descriptors (default: standard input and output) to the console.

    Returns when the user leaves, or the machine stops. Raises Conflict when somebody else has
    the console and *force* is not given, DomainError when the machine does not run.
    """
    if not domain.isActive():
        raise DomainError(
            f"{domain.name()} does not run", hint=f"start it first: armvm start {domain.name()}"
        )
    source = sys.stdin.fileno() if stdin is None else stdin
    target = sys.stdout.fileno() if stdout is None else stdout
    flags = libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else libvirt.VIR_DOMAIN_CONSOLE_SAFE
    with errors(f"opening the console of {domain.name()}"):
        stream = domain.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            domain.openConsole(None, stream, flags)
        except libvirt.libvirtError as error:
            if "Active console session exists" in str(error):
                raise Conflict(
                    f"somebody else has the console of {domain.name()}",
                    hint="--force takes it over",
                ) from error
            raise
        with _raw(source):
            _Session(stream, source, target).run()


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Put a terminal into raw mode, and back however the block ends."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class _Session:
    """One attached console: what waits to be sent, and whether it goes on.

    Everything runs in libvirt's event loop, in this thread.
    """

    def __init__(self, stream: Any, source: int, target: int) -> None:
        self._stream, self._source, self._target = stream, source, target
        self._interactive = os.isatty(source)
        self._waiting = b""
        self._open = True
        self._events = 0
        self._leave_at: float | None = None
        self._watch = -1

    def run(self) -> None:
        self._listen(libvirt.VIR_STREAM_EVENT_READABLE)
        self._watch = _add_handle(self._source, self._input)
        tick = libvirt.virEventAddTimeout(250, self._tick, None)
        try:
            while self._open:
                libvirt.virEventRunDefaultImpl()
        finally:
            libvirt.virEventRemoveTimeout(tick)
            self._drop_input()
            try:
                self._stream.eventRemoveCallback()
                self._stream.abort()
            except libvirt.libvirtError:
                pass  # the other side has closed it

    def _listen(self, events: int) -> None:
        hangup = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
        if self._events:
            self._stream.eventUpdateCallback(events | hangup)
        else:
            self._stream.eventAddCallback(events | hangup, self._output, None)
        self._events = events | hangup

    def _input(self, _watch: int, _descriptor: int, _events: int, _opaque: object) -> None:
        data = os.read(self._source, 4096)
        if not data:
            self._drop_input()
            self._leave_at = time.monotonic() + LINGER
            return
        if self._interactive and ESCAPE in data:
            data = data.split(ESCAPE, 1)[0]
            self._leave_at = time.monotonic()
        self._waiting += data
        if self._waiting:
            self._listen(libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_WRITABLE)

    def _output(self, _stream: object, events: int, _opaque: object) -> None:
        if events & libvirt.VIR_STREAM_EVENT_READABLE:
            data = self._stream.recv(65536)
            if data == b"":
                self._open = False
            elif isinstance(data, bytes):  # -2 means: nothing there yet
                _write_all(self._target, data)
        if events & libvirt.VIR_STREAM_EVENT_WRITABLE and self._waiting:
            sent = self._stream.send(self._waiting)
            if sent > 0:
                self._waiting = self._waiting[sent:]
            if not self._waiting:
                self._listen(libvirt.VIR_STREAM_EVENT_READABLE)
        if events & (libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP):
            self._open = False

    def _tick(self, _timer: int, _opaque: object) -> None:
        if self._leave_at is not None and time.monotonic() >= self._leave_at:
            self._open = bool(self._waiting)

    def _drop_input(self) -> None:
        if self._watch >= 0:
            libvirt.virEventRemoveHandle(self._watch)
            self._watch = -1


def _add_handle(descriptor: int, callback: Callable[..., None]) -> int:
    events = libvirt.VIR_EVENT_HANDLE_READABLE | libvirt.VIR_EVENT_HANDLE_HANGUP
    return int(libvirt.virEventAddHandle(descriptor, events, callback, None))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
