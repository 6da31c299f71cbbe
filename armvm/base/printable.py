"""Text from guests, servers and files, made safe for a terminal."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    """Return text with its unprintable characters escaped, such as escape and bidi overrides.

    Line breaks are escaped too, unless *keep* contains them.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else ascii(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    """Return text of several lines with its unprintable characters escaped."""
    return printable(text, keep="\n\t")
