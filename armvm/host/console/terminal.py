"""The user's own terminal: raw while a console is attached, and restored afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import stat
import struct
import termios
import time
import tty
from collections.abc import Iterator

#: Ctrl-], the key that virsh and telnet use.
ESCAPE = b"\x1d"
#: /dev/null, by Linux's fixed device number (Documentation/admin-guide/devices.txt).
_NULL = os.makedev(1, 3)
#: DEC private modes: ESC [ ? 25 ; 1049 h sets, … l resets (ECMA-48, DEC STD 070, xterm).
_MODE = re.compile(rb"\x1b\[\?([\d;]{1,32})([hl])")
#: An escape sequence that may continue in the next piece.
_CUT = re.compile(rb"\x1b(?:\[(?:\?[\d;]{0,32})?)?\Z")
#: The modes that are on from the start: wrapping, blinking and visible cursor.
_ON = frozenset({7, 12, 25})


def is_nothing(descriptor: int | None) -> bool:
    """Return whether input can never arrive: the descriptor is closed, or the null device."""
    if descriptor is None:
        return True
    try:
        status = os.fstat(descriptor)
    except OSError:
        return True
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Put a terminal into raw mode, and restore it however the block ends; ignore non-terminals.

    Restoring does not wait (TCSANOW): a terminal that nobody reads any more must not keep a
    program from ending, and unread input belongs to the shell.
    """
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):  # hung up
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def size(descriptor: int) -> tuple[int, int] | None:
    """Return a terminal's rows and columns; None if unknown, or not a terminal."""
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows, columns, _, _ = struct.unpack("HHHH", answer)
    return (rows, columns) if rows and columns else None


class Modes:
    """Tracks the terminal modes that a guest's programs have set, so that they can be undone.

    An editor that was left open has set the alternate screen, the mouse and the keypad.
    """

    def __init__(self) -> None:
        self._switched: dict[int, bool] = {}
        self._styled = False
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Record the modes set by bytes that go to the terminal."""
        data = self._rest + data
        for match in _MODE.finditer(data):
            for word in match[1].split(b";"):
                if word and len(self._switched) < 256:
                    self._switched[int(word)] = match[2] == b"h"
        self._styled = self._styled or b"\x1b" in data
        cut = _CUT.search(data)
        self._rest = cut[0] if cut else b""

    def undo(self) -> bytes:
        """Return the bytes that restore the terminal's initial modes."""
        back = [
            b"\x1b[?%d%c" % (mode, ord("h") if mode in _ON else ord("l"))
            for mode, on in self._switched.items()
            if on != (mode in _ON)
        ]
        return b"".join([*back, b"\x1b[0m" if self._styled else b""])


class Wake:
    """A pipe that ends the main thread's wait, from another thread or a signal handler."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)

    def __call__(self) -> None:
        """End the current wait, or the next one."""
        with contextlib.suppress(BlockingIOError):  # full: the wait ends anyway
            os.write(self._write, b"!")

    def wait(self, *descriptors: int, timeout: float | None) -> list[int]:
        """Return which of *descriptors* are readable, after *timeout* seconds at most."""
        ready = select.select([self._read, *descriptors], [], [], timeout)[0]
        if self._read in ready:
            ready.remove(self._read)
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)
        return ready


class Keyboard:
    """The input: a terminal, on which Ctrl-] leaves, or a pipe or file that ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.interactive = os.isatty(descriptor)
        self.left = False
        self.ended: float | None = None  #: when a pipe ended, on the monotonic clock

    @property
    def open(self) -> bool:
        """Whether there may be more to read."""
        return not self.left and self.ended is None

    def read(self) -> bytes:
        """Return the input; bytes after Ctrl-] are dropped."""
        try:
            data = os.read(self.descriptor, 4096)
        except OSError:  # the terminal hung up
            data = b""
        if self.interactive and ESCAPE in data:
            self.left = True
            return data.split(ESCAPE, 1)[0]
        if not data:
            self.left, self.ended = self.interactive, time.monotonic()
        return data
