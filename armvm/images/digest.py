"""Digests in armvm's form: ``sha256:`` or ``sha512:`` and lower-case hex digits.

The cache names everything by its sha256. If a distribution publishes only a sha512, both are
computed in the same pass over the bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from armvm.base.errors import DigestMismatch

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")

#: Bytes to read at once.
CHUNK = 1 << 20


class Hashes:
    """The sha256 of some bytes, and a digest of the same kind as *promised*."""

    def __init__(self, promised: str | None = None) -> None:
        kind = (promised or "sha256").partition(":")[0]
        self._sha256 = hashlib.sha256()
        self._promised = self._sha256 if kind == "sha256" else hashlib.new(kind)

    def update(self, chunk: bytes) -> None:
        """Add the next bytes; large pieces let other threads run."""
        self._sha256.update(chunk)
        if self._promised is not self._sha256:
            self._promised.update(chunk)

    @property
    def sha256(self) -> str:
        """``sha256:HEX`` of all bytes so far."""
        return f"sha256:{self._sha256.hexdigest()}"

    @property
    def promised(self) -> str:
        """The digest of the promised kind; the sha256 if none was promised."""
        return f"{self._promised.name}:{self._promised.hexdigest()}"


def is_digest(text: str) -> bool:
    """Return whether *text* is a digest in armvm's form."""
    return _DIGEST.match(text) is not None


def hash_file(path: Path, *, sync: bool = False, told: Callable[[int], None] | None = None) -> str:
    """Return a file's ``sha256:HEX``; *sync* it first. *told* is called with the bytes done."""
    return hashes_of(path, None, sync=sync, told=told).sha256


def hashes_of(
    path: Path,
    promised: str | None,
    *,
    sync: bool = False,
    told: Callable[[int], None] | None = None,
) -> Hashes:
    """Read a file once, for its sha256 and a digest of the same kind as *promised*."""
    hashes, done = Hashes(promised), 0
    with path.open("rb", buffering=0) as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(CHUNK):
            hashes.update(chunk)
            done += len(chunk)
            if told:
                told(done)
    return hashes


def check_digest(found: str, promised: str | None, name: str) -> None:
    """Raise DigestMismatch if the *promised* digest differs from *found*."""
    if promised is not None and found != promised:
        raise DigestMismatch(
            f"{name} does not match the expected digest",
            detail=f"expected {promised}\nfound    {found}",
            hint="nothing was kept; try again, and if this persists, do not trust the server",
        )
