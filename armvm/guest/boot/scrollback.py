"""Earlier console output: the end of the serial log, joined to the live output.

The log and the console get the same bytes from QEMU. Bytes that arrive between opening the console
and reading the log are in both. This module finds them, so that each is shown exactly once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Escape sequences that only colour text (ECMA-48 SGR).
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
#: Colours, or any other control sequence. A query to the terminal (a resizing shell's ESC [ 6 n)
#: must not be repeated: the terminal's answer would be typed into the guest.
_STEERING = re.compile(
    r"(\x1b\[[\d;]*m)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\x1b]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
#: How many bytes identify one place in a log.
_TELLING = 16
#: How many bytes of the earlier log are searched for in the later one.
_ANCHOR = 4096


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Where a console begins: ``text`` is earlier output, ``live`` is what follows it.

    ``again`` is in the text already, and the console will send it once more.
    """

    text: str
    live: bytes
    again: bytes


def join(before: bytes, after: bytes, received: bytes, lines: int) -> Joined:
    """Return the last *lines* of the log, and the console bytes that are not in it.

    *before* is the end of the log before the console was opened, *after* that of the log
    afterwards, *received* the console's bytes in between. Both can only share what the log grew by.
    """
    if lines <= 0:
        return Joined(text="", live=received, again=b"")
    grown = growth(before, after)
    text = last_lines(after, lines)
    # The log is level or ahead: it contains the received bytes; the rest of it is still to come.
    at = grown.rfind(received) if len(received) >= _TELLING else -1
    if at >= 0:
        return Joined(text=text, live=b"", again=grown[at + len(received) :])
    # The log is behind: it ends with a beginning of the received bytes. A match of a few bytes is
    # no proof; showing them twice is better than losing them.
    least = min(len(received), _TELLING)
    for count in range(min(len(received), len(grown)), max(least, 1) - 1, -1):
        if grown.endswith(received[:count]):
            return Joined(text=text, live=received[count:], again=b"")
    return Joined(text=text, live=received, again=b"")


def last_lines(log: bytes, lines: int) -> str:
    """Return a log's last lines as text with its colours, without other control sequences.

    The last line lacks a newline if the guest has written none: a prompt. Empty for 0 lines.
    """
    if lines <= 0:
        return ""
    # Assumes that a character comes with at most a screenful of escape sequences.
    text = log[-lines * 2048 :].decode(errors="replace")
    text = _STEERING.sub(lambda match: match[1] or "", text.replace("\r\n", "\n"))
    kept = "\n".join(text.split("\n")[-lines - text.endswith("\n") :])
    return kept + "\x1b[0m" if _COLOUR.search(kept) else kept


class Skip:
    """Drops bytes that were already shown, for as long as they match."""

    def __init__(self, expected: bytes) -> None:
        self._expected = expected

    def __call__(self, data: bytes) -> bytes:
        """Return the part of *data* that is new."""
        if not self._expected:
            return data
        count = 0
        for ours, theirs in zip(data, self._expected, strict=False):
            if ours != theirs:
                self._expected = b""
                return data[count:]
            count += 1
        self._expected = self._expected[count:]
        return data[count:]


def growth(before: bytes, after: bytes) -> bytes:
    """Return the bytes in *after* that *before* lacks; both are the last bytes of one log.

    If the log was restarted (the machine was started), all of it is new.
    """
    if after.startswith(before):
        return after[len(before) :]
    anchor = before[-_ANCHOR:]
    at = after.rfind(anchor)
    return after[at + len(anchor) :] if at >= 0 else after
