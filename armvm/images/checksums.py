"""Reading checksum files: which file has which digest."""

from __future__ import annotations

import re

_KINDS = {64: "sha256", 128: "sha512"}
_GNU = re.compile(r"([0-9a-fA-F]{64}|[0-9a-fA-F]{128})(?:[ \t]+\*?(\S+))?\s*\Z")
_BSD = re.compile(r"SHA(256|512) \((\S+)\) = ([0-9a-fA-F]{64,128})\s*\Z")


def digests(document: bytes) -> dict[str, str]:
    """Return file names with their digests (``sha256:HEX``, ``sha512:HEX``).

    A digest that stands alone, as in Alpine's ``.sha512``, has the name "".
    """
    found: dict[str, str] = {}
    for line in document[: 4 << 20].decode(errors="replace").splitlines():
        if match := _GNU.match(line):
            found[match[2] or ""] = f"{_KINDS[len(match[1])]}:{match[1].lower()}"
        elif (match := _BSD.match(line)) and _KINDS.get(len(match[3])) == f"sha{match[1]}":
            found[match[2]] = f"sha{match[1]}:{match[3].lower()}"
    return found
