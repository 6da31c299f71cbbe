"""Parse JSON from a server, with limited memory.

A byte of JSON can become a hundred in memory: ``[[],[],`` makes a list of every three bytes. So
the values are counted before parsing, by the characters that each needs.
"""

from __future__ import annotations

import json
from typing import Any

#: Maximum number of values in a document. Ubuntu's catalog has about 60,000 in its 2.5 MiB.
MAX_VALUES = 300_000

#: Maximum length, in bytes, of a document whose strings can take four bytes a character.
MAX_WIDE = 4 << 20


def load(document: bytes) -> Any:
    """Return the contents of a JSON document.

    Raises ValueError if it is invalid, nested too deeply, or would take more memory than a catalog
    needs.
    """
    values = sum(document.count(one) for one in (b",", b"[", b"{"))
    if values > MAX_VALUES:
        raise ValueError(f"it has too many values ({values})")
    if len(document) > MAX_WIDE and (not document.isascii() or b"\\u" in document):
        raise ValueError(f"it is too large: {len(document)} bytes with non-ASCII characters")
    try:
        return json.loads(document)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
