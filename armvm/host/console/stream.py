"""The serial console: bytes between a machine's ttyAMA0 and the caller, through libvirt.

It works over any connection, since it uses libvirt's stream. libvirt's events arrive in a thread
of their own, as in virsh: Python runs signal handlers only in the main thread, and an exception
they raise is lost in a callback that C calls. The main thread waits on descriptors, so that
a signal can always end it.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import libvirt

from armvm.base.errors import Conflict
from armvm.host.connection import Connection, Domain, errors, not_running
from armvm.host.console.terminal import Keyboard, Wake

#: After a pipe ends: the silence after which the guest has answered, and the longest wait, in s.
QUIET, PATIENCE = 2.0, 60.0
#: Seconds without an answer to input, after which another user may have taken the console.
DOUBT = 5.0
#: Seconds for libvirt to answer when the console is closed.
HANG_UP = 3.0
#: Seconds for the last input to be sent before Ctrl-] leaves.
_FLUSH = 1.0
#: The most bytes buffered in either direction.
_LIMIT = 1 << 20
_BAD = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP


def start_event_loop() -> None:
    """Run libvirt's event loop in a thread. Call it before the connection is opened."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt events", daemon=True).start()


def keep_alive(connection: Connection) -> None:
    """Detect a lost remote host within 30 s, as virsh does. Needs the event loop."""
    with contextlib.suppress(libvirt.libvirtError):  # local drivers do not support it
        connection.setKeepAlive(5, 6)


class End(enum.Enum):
    """Why a console ended."""

    LEFT = "the user left, or the input ended and was answered"
    CLOSED = "the other side closed it"
    SILENT = "no answer to the last input"


class Line:
    """An open console. Its callbacks run in the event thread; call the methods from any thread."""

    def __init__(self, stream: Any, wake: Wake) -> None:
        self._stream, self._wake = stream, wake
        self._lock = threading.Lock()
        self._incoming = self._outgoing = b""
        self._closed = False
        with self._lock:
            self._events = libvirt.VIR_STREAM_EVENT_READABLE | _BAD
            stream.eventAddCallback(self._events, self._event, None)

    @property
    def closed(self) -> bool:
        """Whether the other side has closed it, and all output was taken."""
        with self._lock:
            return self._closed and not self._incoming

    @property
    def waiting(self) -> int:
        """How many bytes have not been sent yet."""
        with self._lock:
            return 0 if self._closed else len(self._outgoing)

    def take(self) -> bytes:
        """Return the bytes received since the last call."""
        with self._lock:
            data, self._incoming = self._incoming, b""
            self._listen()
            return data

    def send(self, data: bytes) -> None:
        """Send bytes as soon as the other side accepts them."""
        with self._lock:
            self._outgoing += data
            self._listen()

    def close(self) -> None:
        """Close the stream, in at most HANG_UP seconds: if another user took the console (see
        `talk`), libvirt does not answer that either.
        """
        with self._lock:
            self._closed = True
            with contextlib.suppress(libvirt.libvirtError):
                # A stream that has ended lost its callback, and cannot be aborted.
                self._stream.eventRemoveCallback()
                hang_up = threading.Thread(target=self._abort, name="hang up", daemon=True)
                hang_up.start()
                hang_up.join(HANG_UP)

    def _abort(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.abort()

    def _listen(self) -> None:
        events = _BAD
        if len(self._incoming) < _LIMIT:
            events |= libvirt.VIR_STREAM_EVENT_READABLE
        if self._outgoing:
            events |= libvirt.VIR_STREAM_EVENT_WRITABLE
        if events != self._events and not self._closed:
            with contextlib.suppress(libvirt.libvirtError):  # just closed: an event reports it
                self._stream.eventUpdateCallback(events)
                self._events = events

    def _event(self, _stream: object, events: int, _opaque: object) -> None:
        with self._lock:
            try:
                self._exchange(events)
            except libvirt.libvirtError:
                self._closed = True
            self._listen()
            if self._closed:
                with contextlib.suppress(libvirt.libvirtError):
                    self._stream.eventRemoveCallback()  # or it would be called forever
        self._wake()

    def _exchange(self, events: int) -> None:
        if events & libvirt.VIR_STREAM_EVENT_READABLE:
            data = self._stream.recv(65536)
            if data == b"":
                self._closed = True
            elif isinstance(data, bytes):  # -2 means: no data yet
                self._incoming += data
        elif events & _BAD:  # read remaining output before the end
            self._closed = True
        if events & libvirt.VIR_STREAM_EVENT_WRITABLE and self._outgoing:
            sent = self._stream.send(self._outgoing[:65536])
            if sent > 0:
                self._outgoing = self._outgoing[sent:]


@contextlib.contextmanager
def opened(domain: Domain, wake: Wake, *, force: bool) -> Iterator[Line]:
    """Open a machine's console, and close it after the block.

    Raises Conflict if another user has the console and *force* is not given, DomainError if the
    machine is not running.
    """
    name = domain.name()
    flags = libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else libvirt.VIR_DOMAIN_CONSOLE_SAFE
    with errors(f"opening the console of {name}"):
        check_running(domain)
        stream = domain.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            domain.openConsole(None, stream, flags)
        except libvirt.libvirtError as error:
            if "Active console session exists" in str(error):
                raise Conflict(
                    f"the console of {name} is in use", hint="take it over with --force"
                ) from error
            raise
        line = Line(stream, wake)
    try:
        yield line
    finally:
        line.close()


def check_running(domain: Domain) -> None:
    """Raise DomainError if a machine is not running."""
    with errors(f"checking {domain.name()}"):
        if not domain.isActive():
            raise not_running(domain.name())


def run_of(domain: Domain) -> int | None:
    """Return a number that differs for each run of a machine; None while it is off.

    Looks the domain up again: a domain object keeps its first id (virDomainGetID).
    """
    try:
        number = int(domain.connect().lookupByUUID(domain.UUID()).ID())
    except libvirt.libvirtError:  # off, or deleted
        return None
    return number if number >= 0 else None


def talk(line: Line, keyboard: Keyboard, wake: Wake, show: Callable[[bytes], None]) -> End:
    """Pass bytes both ways until the user leaves or the other side ends; *show* gets the guest's.

    When piped input ends, the console is left after the guest has been silent for QUIET seconds.
    On a terminal, DOUBT seconds without an answer also end it: libvirt (9.0) does not always
    notify a console that another user has taken. If bytes were being sent at that moment, it was
    seen to send no event, to accept input, and to leave the stream's abort unanswered.
    """
    heard, hurry, unanswered = time.monotonic(), 0.0, 0.0
    while True:
        full = line.waiting > _LIMIT // 16
        listening = [keyboard.descriptor] if keyboard.open and not full else []
        if wake.wait(*listening, timeout=0.25):
            line.send(keyboard.read())
            unanswered = unanswered or time.monotonic()
        data, now = line.take(), time.monotonic()
        if data:
            heard, unanswered = now, 0.0
            show(data)
        elif line.closed:
            return End.CLOSED
        if keyboard.left:
            hurry = hurry or now + _FLUSH
            if not line.waiting or now > hurry:
                return End.LEFT
        elif keyboard.interactive and unanswered and now - unanswered > DOUBT:
            return End.SILENT
        elif keyboard.ended is not None:
            silent = now - max(heard, keyboard.ended) > QUIET and not line.waiting
            if silent or now - keyboard.ended > PATIENCE:
                return End.LEFT
