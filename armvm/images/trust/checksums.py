"""Parse checksum files: the digests that a distribution publishes for its files.

::

    HEX  NAME      HEX *NAME       GNU coreutils: Ubuntu's SHA256SUMS, Debian's SHA512SUMS,
                                   openSUSE's IMAGE.sha256
    SHA256 (NAME) = HEX            BSD: Fedora's CHECKSUM
    HEX                            of the file beside it: its name is ""
"""

from __future__ import annotations

import io
import re

from armvm.base.errors import FetchFailed

_GNU = re.compile(r"([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})(?: [ *](.+))?")
_BSD = re.compile(r"(SHA256|SHA512) ?\((.+)\) ?= ?([0-9A-Fa-f]+)")
_KINDS = {64: "sha256", 128: "sha512"}


def digests(document: bytes) -> dict[str, str]:
    """Return file names with their digests: ``sha256:`` or ``sha512:`` and lower-case hex.

    For a name with both, the sha256. Other lines (comments, sizes, md5) are skipped, and so are
    names that are not plain file names. Raises FetchFailed for a document with two digests of a
    kind for one name, or with none at all.
    """
    found: dict[tuple[str, str], str] = {}
    for line in io.BytesIO(document):
        # No digest is shorter, and a file of empty lines has millions of lines.
        entry = _entry(line.decode("utf-8", errors="replace").strip()) if len(line) >= 64 else None
        if entry is None:
            continue
        name, kind, value = entry
        if found.setdefault((name, kind), value) != value:
            raise FetchFailed(f"the checksum file has two digests for {ascii(name)[:80]}")
    if not found:
        raise FetchFailed("the checksum file contains no digests", hint="check the mirror")
    # sha512 first, so that a sha256 of the same name replaces it.
    ordered = sorted(found.items(), key=lambda one: one[0][1], reverse=True)
    return {name: f"{kind}:{value}" for (name, kind), value in ordered}


def _entry(line: str) -> tuple[str, str, str] | None:
    """Return a line's file name, kind of digest, and hex digits; None for other lines."""
    if match := _BSD.fullmatch(line):
        kind, name, value = match[1].lower(), match[2], match[3]
    elif match := _GNU.fullmatch(line):
        value, name = match[1], match[2] or ""
        kind = _KINDS[len(value)]
    else:
        return None
    name = name.removeprefix("./")
    if _KINDS.get(len(value)) != kind or "/" in name or not name.isprintable() or "�" in name:
        return None
    return name, kind, value.lower()
