"""The serial console: bytes between a machine's ttyAMA0 and the caller, through libvirt.

It works over any connection, since it uses libvirt's own stream. libvirt's events come in a
thread of their own, as in virsh: Python runs signal handlers in the main thread only, and what
they raise is lost in a callback that C calls. The main thread waits on descriptors, and nothing
of libvirt's keeps a signal from ending it.
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

#: After a pipe's end: seconds of silence after which the guest has answered, and the most of all.
QUIET, PATIENCE = 2.0, 60.0
#: Seconds without an answer to what was typed, after which the console may not be ours any more.
DOUBT = 5.0
#: Seconds that libvirt has to answer when the console is left.
HANG_UP = 3.0
#: Seconds that what was typed last may take on its way before Ctrl-] leaves.
_FLUSH = 1.0
#: Bytes that may wait on their way, in either direction.
_LIMIT = 1 << 20
_BAD = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP


def start_event_loop() -> None:
    """Run libvirt's event loop in a thread. It must be there before the connection is opened."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt events", daemon=True).start()


def keep_alive(connection: Connection) -> None:
    """Have a far host that has gone noticed within 30 s, as virsh does. Needs the event loop."""
    with contextlib.suppress(libvirt.libvirtError):  # local drivers know no such thing
        connection.setKeepAlive(5, 6)


class End(enum.Enum):
    """Why a console's bytes have stopped."""

    LEFT = "the user left, or the input ended and was answered"
    CLOSED = "the other side closed it"
    SILENT = "nothing came back of what was typed"


class Line:
    """An open console. Its callbacks come in the thread of the events; all else may be called."""

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
        """Whether the other side has ended it, and all it said was taken."""
        with self._lock:
            return self._closed and not self._incoming

    @property
    def waiting(self) -> int:
        """How many bytes have not been sent yet."""
        with self._lock:
            return 0 if self._closed else len(self._outgoing)

    def take(self) -> bytes:
        """Return what has come since the last time."""
        with self._lock:
            data, self._incoming = self._incoming, b""
            self._listen()
            return data

    def send(self, data: bytes) -> None:
        """Send bytes as soon as the other side takes them."""
        with self._lock:
            self._outgoing += data
            self._listen()

    def close(self) -> None:
        """Hang up, for HANG_UP seconds at the most: a stream that was taken away without a word
        (see `talk`) gets no answer to that either.
        """
        with self._lock:
            self._closed = True
            with contextlib.suppress(libvirt.libvirtError):
                # An ended stream has lost its callback already, and cannot be aborted.
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
            with contextlib.suppress(libvirt.libvirtError):  # closed just now: an event tells
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
                    self._stream.eventRemoveCallback()  # or it would be called for ever
        self._wake()

    def _exchange(self, events: int) -> None:
        if events & libvirt.VIR_STREAM_EVENT_READABLE:
            data = self._stream.recv(65536)
            if data == b"":
                self._closed = True
            elif isinstance(data, bytes):  # -2 means: nothing there yet
                self._incoming += data
        elif events & _BAD:  # what was said before the end is read first
            self._closed = True
        if events & libvirt.VIR_STREAM_EVENT_WRITABLE and self._outgoing:
            sent = self._stream.send(self._outgoing[:65536])
            if sent > 0:
                self._outgoing = self._outgoing[sent:]


@contextlib.contextmanager
def opened(domain: Domain, wake: Wake, *, force: bool) -> Iterator[Line]:
    """Open a machine's console, and hang up after the block.

    Raises Conflict when somebody else has the console and *force* is not given, DomainError when
    the machine does not run.
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
                    f"somebody else has the console of {name}", hint="--force takes it over"
                ) from error
            raise
        line = Line(stream, wake)
    try:
        yield line
    finally:
        line.close()


def check_running(domain: Domain) -> None:
    """Raise DomainError when a machine does not run."""
    with errors(f"looking at {domain.name()}"):
        if not domain.isActive():
            raise not_running(domain.name())


def run_of(domain: Domain) -> int | None:
    """Return a number that each run of a machine has of its own; None while it is off.

    Looked up anew: an object's own is what it was when it was looked up (virDomainGetID).
    """
    try:
        number = int(domain.connect().lookupByUUID(domain.UUID()).ID())
    except libvirt.libvirtError:  # off, or removed
        return None
    return number if number >= 0 else None


def talk(line: Line, keyboard: Keyboard, wake: Wake, show: Callable[[bytes], None]) -> End:
    """Pass bytes both ways until the user leaves or the other side ends; *show* gets the guest's.

    A pipe that ends leaves when the guest has been silent for QUIET seconds. On a terminal, DOUBT
    seconds without an answer end it too: libvirt (9.0) does not always tell a console that
    somebody else has taken it. Where bytes were on their way to it in that moment, it was seen to
    tell nothing, to take what is typed, and to leave the stream's abort unanswered.
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
