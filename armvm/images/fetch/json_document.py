"""JSON from a server: bounded in memory before it is parsed.

A byte of JSON can become a hundred in memory: ``[[],[],`` makes a list of every three. So the
values are counted first, by the characters without which there are none.
"""

from __future__ import annotations

import json
from typing import Any

#: The most values in a document. Ubuntu's catalog has about 60,000 in its 2.5 MiB.
MAX_VALUES = 300_000

#: The longest document, in bytes, whose strings can take four bytes a character.
MAX_WIDE = 4 << 20


def load(document: bytes) -> Any:
    """Return what a JSON document says.

    Raises ValueError for one that is no JSON, is nested too deep, or would take more memory than
    a catalog needs.
    """
    values = sum(document.count(one) for one in (b",", b"[", b"{"))
    if values > MAX_VALUES:
        raise ValueError(f"it has {values} values")
    if len(document) > MAX_WIDE and (not document.isascii() or b"\\u" in document):
        raise ValueError(f"it has {len(document)} bytes, and characters that are not ASCII")
    try:
        return json.loads(document)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
