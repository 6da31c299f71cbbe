"""Turn a guest's serial output into text that is safe to print on a terminal.

Some sequences make a terminal answer as if its user had typed: all of those are removed.
"""

from __future__ import annotations

import codecs
import re

#: ECMA-48 escape sequences: CSI (SGR, the colours, apart), strings (OSC, DCS, …), the short ones;
#: and control characters except tab and newline, including the one-character forms above 0x7f.
_CONTROL = re.compile(
    r"(?P<colour>\x1b\[[0-9;]*m)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
#: What may be the start of a sequence, at the end of a text.
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z")
#: The longest incomplete sequence that is held back, in characters.
_LONGEST = 4096


class Cleaner:
    """Converts a log's bytes, piece by piece, to text with or without *colours*."""

    def __init__(self, *, colours: bool = False) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._colours = colours
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Return the text of *data*; an incomplete sequence or character waits for the rest."""
        text = self._rest + self._decode(data, final)
        begun = None if final else _BEGUN.search(text, max(0, len(text) - _LONGEST))
        at = len(text) if begun is None else begun.start()
        text, self._rest = text[:at], text[at:]
        return _CONTROL.sub(self._keep, text)

    def _keep(self, match: re.Match[str]) -> str:
        return match["colour"] or "" if self._colours else ""


def last_lines(text: str, count: int) -> str:
    """Return the last *count* lines of a text, in full; an unfinished line counts too."""
    lines = text.split("\n")
    unfinished = lines.pop()
    kept = lines[max(0, len(lines) - (count - bool(unfinished))) :] if count else []
    return "".join(f"{line}\n" for line in kept) + (unfinished if count else "")
