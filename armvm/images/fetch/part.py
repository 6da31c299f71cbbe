"""What has arrived of a file that is being fetched, with what it takes to go on from there.

::

    ROOT/.<key>.part        the first bytes of the file as it is published
    ROOT/.<key>.part.json   where they come from: size of the whole, and the server's validator

Both outlive the process that fetches: after a cut, Ctrl-C or ``kill -9`` the next one goes on.
Nothing here is trusted: the digest of the whole decides. Whoever writes holds the cache's lock for
the key; whoever waits for that lock reads sizes only. Sources: RFC 9110, sections 8.8 and 13.1.5.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from armvm.base.paths import write_atomic

#: Tells one run of the host's kernel from the next: what was not synced may be lost in between.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a part comes from: ``url`` is its sha256 (a URL may hold a password), ``total`` the
    size of the whole file in bytes, ``etag`` and ``modified`` the server's validators, as sent.
    """

    url: str
    total: int | None = None
    etag: str | None = None
    modified: str | None = None
    boot: str = ""

    @classmethod
    def of(cls, url: str, *, total: int | None, etag: str | None, modified: str | None) -> Origin:
        """Describe what a server begins to send now."""
        return cls(url=_hex(url), total=total, etag=etag, modified=modified, boot=_boot())

    @property
    def validator(self) -> str | None:
        """What If-Range may carry: a strong ETag, else a date; None where there is neither."""
        if self.etag is not None and self.etag.startswith('"'):
            return self.etag
        return self.modified

    def continues(self, url: str, *, promised: bool) -> bool:
        """Tell whether the rest of *url* may be asked for.

        Where no digest is *promised*, nothing would show a wrong byte afterwards: then only a
        strong ETag counts, and only while the host has not been started anew.
        """
        if self.url != _hex(url) or self.validator is None:
            return False
        return promised or (self.validator == self.etag and self.boot == _boot() != "")


@dataclass(frozen=True)
class Part:
    """A half-fetched file at ``path``; it need not exist. Methods raise OSError."""

    path: Path

    @property
    def note(self) -> Path:
        """The JSON file beside it."""
        return self.path.with_name(f"{self.path.name}.json")

    def size(self) -> int:
        """Return how many bytes have arrived."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def origin(self) -> Origin | None:
        """Return where the bytes come from; None where nothing sound says so."""
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
        """Open the file for reading and writing, unbuffered; it is made, 0600, if need be."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0)

    def describe(self, origin: Origin) -> None:
        """Write down where the bytes come from. The file is empty then: old bytes are not its."""
        write_atomic(self.note, json.dumps(asdict(origin)).encode())

    def discard(self) -> None:
        """Remove it; nothing there is no error."""
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _hex(url: str) -> str:
    return hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
