"""The partial download of a file, and the data to resume it.

::

    ROOT/.<key>.part        the first bytes of the published file
    ROOT/.<key>.part.json   their origin: total size and the server's validator

Both outlive the process: after a lost connection, Ctrl-C or ``kill -9`` the next one resumes.
Nothing here is trusted: the digest of the whole file decides. The writer holds the cache's lock
for the key; waiting processes only read sizes. Sources: RFC 9110, sections 8.8 and 13.1.5.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from armvm.base.paths import write_atomic

#: Identifies a boot of the host: data that was not synced may be lost across boots.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The origin of a part: ``url`` is its sha256 (a URL may hold a password), ``total`` the
    size of the whole file in bytes, ``etag`` and ``modified`` the server's validators.
    """

    url: str
    total: int | None = None
    etag: str | None = None
    modified: str | None = None
    boot: str = ""

    @classmethod
    def of(cls, url: str, *, total: int | None, etag: str | None, modified: str | None) -> Origin:
        """Describe a response that the server starts to send now."""
        return cls(url=_hex(url), total=total, etag=etag, modified=modified, boot=_boot())

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, else a date; None if there is neither."""
        if self.etag is not None and self.etag.startswith('"'):
            return self.etag
        return self.modified

    def continues(self, url: str, *, promised: bool) -> bool:
        """Return whether the rest of *url* may be requested.

        Without a *promised* digest, nothing would detect a wrong byte: then only a strong ETag
        counts, and only until the host reboots.
        """
        if self.url != _hex(url) or self.validator is None:
            return False
        return promised or (self.validator == self.etag and self.boot == _boot() != "")


@dataclass(frozen=True)
class Part:
    """A partial download at ``path``, which need not exist. Methods raise OSError."""

    path: Path

    @property
    def note(self) -> Path:
        """The JSON file beside it."""
        return self.path.with_name(f"{self.path.name}.json")

    def size(self) -> int:
        """Return the number of bytes that have arrived."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def origin(self) -> Origin | None:
        """Return the origin of the bytes; None if it is unknown or invalid."""
        try:
            known = json.loads(self.note.read_bytes())
            origin = Origin(**known)
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        texts = (origin.url, origin.boot, origin.etag or "", origin.modified or "")
        sound = all(isinstance(one, str) and one.isprintable() for one in texts)
        total = origin.total
        whole = total is None or (isinstance(total, int) and total >= 0)
        return origin if sound and whole else None

    def open(self) -> BinaryIO:
        """Open the file for reading and writing, unbuffered; create it (0600) if necessary."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0)

    def describe(self, origin: Origin) -> None:
        """Record the origin of the bytes that follow, and empty the file."""
        write_atomic(self.note, json.dumps(asdict(origin)).encode())

    def discard(self) -> None:
        """Remove the file; a missing file is not an error."""
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _hex(url: str) -> str:
    return hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
