"""Console text: the earlier output that is shown, and the terminal reset at the end."""

from __future__ import annotations

import os
import pty
import termios
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.guest.boot.scrollback import Skip, join, last_lines
from armvm.host.console.terminal import Keyboard, Modes, Wake, is_nothing, raw, size

#: Bytes among which nothing repeats, so that an overlap has one reading.
DISTINCT = b"".join(f"line {number}: {number * 7919 % 10007}\r\n".encode() for number in range(60))


def test_an_idle_guest_is_shown_as_it_was_left() -> None:
    log = b"boot\r\nDebian\r\n\r\nhost login: "
    found = join(log, log, b"", 3)
    assert found.text == "Debian\n\nhost login: "
    assert (found.live, found.again) == (b"", b"")


@given(
    st.integers(0, len(DISTINCT)),
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(0, 400),
)
def test_nothing_is_doubled_or_lost(
    start: int, before: int, opened: int, received: int, lag: int
) -> None:
    """Whatever comes first: the log's look, the opening, the bytes themselves."""
    stream = DISTINCT[start:]
    early = stream[:before]
    opened = min(before + opened, len(stream))
    got = stream[opened : opened + received]
    # The log's second look may be behind what the console has brought, or ahead of it. A few
    # bytes can stand anywhere: for them, it is level, and an overlap is long or none.
    shift = 200 - lag if len(got) >= 20 else 0
    late = stream[: max(opened, opened + len(got) + shift)]
    if 0 < len(late) - opened < 16 <= len(got):
        late = stream[:opened]
    found = join(early, late, got, 10_000)
    rest = Skip(found.again)(stream[opened + len(got) :])
    shown = found.text.encode() + (found.live + rest).replace(b"\r\n", b"\n")
    assert shown.replace(b"\r", b"") == stream.replace(b"\r\n", b"\n").replace(b"\r", b"")


def test_without_scrollback_the_console_is_passed_on_as_it_comes() -> None:
    found = join(b"a", b"ab", b"b", 0)
    assert (found.text, found.live, found.again) == ("", b"b", b"")


def test_a_log_that_began_anew_is_all_new() -> None:
    assert join(b"the old run\r\n", b"new\r\n", b"new\r\n", 9).live == b""


def test_what_was_said_again_is_dropped_only_while_it_is_the_same() -> None:
    skip = Skip(b"abcdef")
    assert skip(b"abc") == b""
    assert skip(b"dXf") == b"Xf"
    assert skip(b"ef") == b"ef"


def test_last_lines_keep_colours_and_ask_the_terminal_nothing() -> None:
    log = b"one\r\n\x1b[6n\x1b[2J\x1b[0;32mok\x1b[0m \x1b]0;title\x07\xc2\x9b\x00two\x1b[?25l\r\n"
    assert last_lines(log, 1) == "\x1b[0;32mok\x1b[0m two\n\x1b[0m"
    assert last_lines(log, 2).startswith("one\n")
    assert last_lines(log, 0) == ""


@given(st.binary(max_size=300), st.integers(0, 5))
def test_scrollback_never_steers_the_terminal(log: bytes, lines: int) -> None:
    import re

    text = re.sub(r"\x1b\[[\d;]*m", "", last_lines(log, lines))
    assert not [one for one in text if one not in "\t\n" and (one < " " or "\x7f" <= one <= "\x9f")]
    assert text.count("\n") <= lines


def test_modes_that_a_guest_has_switched_are_switched_back() -> None:
    modes = Modes()
    modes.feed(b"vim\x1b[?10")
    modes.feed(b"49h\x1b[?2004;1000h\x1b[?25l")
    modes.feed(b"\x1b[?1000l")
    assert modes.undo() == b"\x1b[?1049l\x1b[?2004l\x1b[?25h\x1b[0m"


def test_a_guest_that_switched_nothing_leaves_nothing_to_undo() -> None:
    modes = Modes()
    modes.feed(b"plain text \x1b")
    modes.feed(b"[?25h")
    assert modes.undo() == b"\x1b[0m"
    assert Modes().undo() == b""


def test_the_null_device_and_a_closed_descriptor_are_nothing(tmp_path: Path) -> None:
    with Path(os.devnull).open() as null:
        assert is_nothing(null.fileno())
        closed = null.fileno()
    assert is_nothing(closed)
    assert is_nothing(None)
    read, write = os.pipe()
    file = (tmp_path / "keys").open("wb")
    for descriptor in (read, write, file.fileno()):
        assert not is_nothing(descriptor)
    for descriptor in (read, write):
        os.close(descriptor)
    file.close()


def test_raw_mode_ends_with_the_block_however_that_ends() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with pytest.raises(ZeroDivisionError), raw(slave):
        assert termios.tcgetattr(slave)[3] & termios.ECHO == 0
        raise ZeroDivisionError
    assert termios.tcgetattr(slave) == before
    assert size(slave) is None
    termios.tcsetwinsize(slave, (7, 70)) if hasattr(termios, "tcsetwinsize") else None
    with raw(slave):
        os.close(master)  # hung up: no error on the way out
    os.close(slave)


def test_ctrl_bracket_leaves_a_terminal_and_nothing_else() -> None:
    master, slave = pty.openpty()
    read, write = os.pipe()
    with raw(slave):
        keyboard, pipe, wake = Keyboard(slave), Keyboard(read), Wake()
        os.write(master, b"ls\x1dgone")
        assert wake.wait(slave, timeout=5) == [slave]
        assert keyboard.read() == b"ls"
        assert keyboard.left
        os.write(write, b"ls\x1d")
        assert pipe.read() == b"ls\x1d"
        assert pipe.open
        os.close(write)
        assert pipe.read() == b""
        assert not pipe.open
        assert pipe.ended is not None
    for descriptor in (master, slave, read):
        os.close(descriptor)


def test_a_wake_before_the_wait_counts() -> None:
    wake = Wake()
    start = time.monotonic()
    wake()
    assert wake.wait(timeout=30) == []
    assert time.monotonic() - start < 5
