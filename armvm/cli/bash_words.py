"""Completion of words with a colon in bash, such as ``ubuntu:24.04``.

bash takes a colon for the end of a word (COMP_WORDBREAKS): it asks about ``24``, as the third of
``ubuntu``, ``:`` and ``24``, and puts what it is answered after the colon. typer does not know.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, MutableMapping, Sequence


@contextlib.contextmanager
def colons(environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Where bash asks to complete a word with colons, ask for all of it and answer with its end."""
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
    """Put words that bash took apart at colons together again, where bash asks to complete.

    Returns what stands before the last colon of the word in question, with the colon.
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
    """Return the words as they were typed, and the place of number *current* among them."""
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
