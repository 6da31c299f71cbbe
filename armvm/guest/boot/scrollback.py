"""What a console said before one looked: the end of the serial log, joined to what comes now.

The log and the console get the same bytes from QEMU. Those that came between opening the console
and reading the log are in both; here they are found, so that none is shown twice or not at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Escape sequences that only colour text (ECMA-48 SGR).
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
#: Colours, or anything else that steers a terminal. What asks it a question (a resizing shell's
#: ESC [ 6 n) must not be asked again: the answer would be typed into the guest.
_STEERING = re.compile(
    r"(\x1b\[[\d;]*m)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\x1b]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
#: Bytes that stand in one place of a log only.
_TELLING = 16
#: How much of the earlier log is looked for in the later one, in bytes.
_ANCHOR = 4096


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Where a console begins: ``text`` was missed, ``live`` goes on from there.

    ``again`` is in the text already, and will come from the console once more.
    """

    text: str
    live: bytes
    again: bytes


def join(before: bytes, after: bytes, received: bytes, lines: int) -> Joined:
    """Return the last *lines* of the log, and what of the console's bytes is not in there.

    *before* is the log's end from before the console was opened, *after* from later, *received*
    what the console has said between. Only what the log grew by can have been said by both.
    """
    if lines <= 0:
        return Joined(text="", live=received, again=b"")
    grown = _growth(before, after)
    text = last_lines(after, lines)
    # The log is level, or ahead: what was received is in it, and what follows is still to come.
    at = grown.rfind(received) if len(received) >= _TELLING else -1
    if at >= 0:
        return Joined(text=text, live=b"", again=grown[at + len(received) :])
    # The log is behind: a beginning of what was received ends it. A few bytes of many prove
    # nothing, and to show them twice is better than never.
    least = min(len(received), _TELLING)
    for count in range(min(len(received), len(grown)), max(least, 1) - 1, -1):
        if grown.endswith(received[:count]):
            return Joined(text=text, live=received[count:], again=b"")
    return Joined(text=text, live=received, again=b"")


def last_lines(log: bytes, lines: int) -> str:
    """Return a log's last lines as text with its colours, and nothing else that steers a terminal.

    The last one has no newline when the guest has written none: a prompt. Empty for 0 lines.
    """
    if lines <= 0:
        return ""
    # A character is a screenful of escape sequences at most.
    text = log[-lines * 2048 :].decode(errors="replace")
    text = _STEERING.sub(lambda match: match[1] or "", text.replace("\r\n", "\n"))
    kept = "\n".join(text.split("\n")[-lines - text.endswith("\n") :])
    return kept + "\x1b[0m" if _COLOUR.search(kept) else kept


class Skip:
    """Drops bytes that were shown already, as long as they come as they were."""

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


def _growth(before: bytes, after: bytes) -> bytes:
    """Return what *after* has that *before* has not; both are the last bytes of one log.

    A log that began anew (the machine was started) is new as a whole.
    """
    if after.startswith(before):
        return after[len(before) :]
    anchor = before[-_ANCHOR:]
    at = after.rfind(anchor)
    return after[at + len(anchor) :] if at >= 0 else after
