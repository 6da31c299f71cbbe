"""Completion of words with a colon in bash, such as ``ubuntu:24.04``.

bash splits words at colons (COMP_WORDBREAKS): it completes ``24`` as the third word of ``ubuntu``,
``:`` and ``24``, and inserts the answer after the colon. typer does not handle this.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, MutableMapping, Sequence


@contextlib.contextmanager
def colons(environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Let the block complete the whole word with its colons; print what follows the last colon."""
    before = rejoin(environ)
    if not before:
        yield
        return
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        for line in said.getvalue().splitlines():
            print(line.removeprefix(before))


def rejoin(environ: MutableMapping[str, str]) -> str:
    """Join the words that bash split at colons; return the current word up to its last colon.

    Changes COMP_WORDS and COMP_CWORD in *environ*. Returns an empty string if there is nothing to
    join.
    """
    words = environ.get("COMP_WORDS", "").split("\n")
    current = environ.get("COMP_CWORD", "")
    if environ.get("_ARMVM_COMPLETE") != "complete_bash" or not current.isdecimal():
        return ""
    whole, place = _together(words, int(current))
    if place is None or len(whole) == len(words):
        return ""
    environ["COMP_WORDS"], environ["COMP_CWORD"] = "\n".join(whole), str(place)
    return whole[place][: whole[place].rfind(":") + 1]


def _together(words: Sequence[str], current: int) -> tuple[list[str], int | None]:
    """Return the words as typed, and the index of word *current* among them."""
    whole: list[str] = []
    place = None
    glued = False
    for number, word in enumerate(words):
        colon = bool(word) and not word.strip(":")
        if len(whole) > 1 and (colon or glued):
            whole[-1] += word
        else:
            whole.append(word)
        glued = colon
        if number == current:
            place = len(whole) - 1
    return whole, place
