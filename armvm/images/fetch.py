"""Fetching over HTTP: a small document into memory, or an image into a file, hashed on its way."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from armvm.errors import DigestMismatch, FetchFailed
from armvm.images.reference import public_url
from armvm.images.transport import Web, get, retrying
from armvm.progress import Progress, size_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Response

#: The largest catalog, in bytes, after decompression (Ubuntu's has about 2 MiB).
MAX_DOCUMENT = 64 << 20

CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What was written: ``digest`` is ``sha256:`` and 64 hex digits, ``size`` is in bytes."""

    digest: str
    size: int


def document(web: Web, url: str, *, progress: Progress, limit: int = MAX_DOCUMENT) -> bytes:
    """Return the body at *url*, of *limit* bytes at most.

    Raises Unreachable and FetchFailed.
    """

    def attempt() -> bytes:
        body = bytearray()
        with get(web, url, verified=False) as response:
            # iter_content undoes gzip; what is counted is what comes out of it.
            for chunk in response.iter_content(64 << 10):
                body += chunk
                if len(body) > limit:
                    raise FetchFailed(
                        f"{public_url(url)} is larger than {size_text(limit)}: no image catalog"
                    )
        return bytes(body)

    return retrying(web, attempt, warn=progress.warn)


def download(
    web: Web,
    url: str,
    target: Path,
    *,
    label: str,
    progress: Progress,
    digest: str | None = None,
    size: int | None = None,
    room: Callable[[int], None] = lambda _: None,
) -> Fetched:
    """Write the body at *url* to *target*, which is made (0600) or emptied, and sync it.

    *digest* and *size* are what was promised, where something was. *room* is called with the
    number of bytes to come, where known, and raises when there is no space for them. The caller
    removes *target* after an error. Raises Unreachable, FetchFailed (no such file, cut short,
    more than promised), DigestMismatch; OSError when writing fails.
    """

    def attempt() -> Fetched:
        # identity: the digest is of the file as published, so no transfer compression.
        headers = {"Accept-Encoding": "identity"}
        with get(web, url, verified=digest is not None, headers=headers) as response:
            announced = _content_length(response)
            expected = announced if size is None else size
            if expected is not None:
                room(expected)
            if size is not None and announced is not None and announced != size:
                raise _wrong_length(url, announced, size)
            return _write(response, url, target, expected)

    def _write(response: Response, url: str, target: Path, expected: int | None) -> Fetched:
        sha256, done = hashlib.sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            progress.task(label, total=expected) as task,
            os.fdopen(os.open(target, flags, 0o600), "wb") as file,
        ):
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                sha256.update(chunk)
                file.write(chunk)
                done += len(chunk)
                if expected is not None and done > expected:
                    raise _wrong_length(url, done, expected)
                task.update(done)
            file.flush()
            os.fsync(file.fileno())
        if expected is not None and done != expected:
            raise _wrong_length(url, done, expected)
        return Fetched(digest=f"sha256:{sha256.hexdigest()}", size=done)

    fetched = retrying(web, attempt, warn=progress.warn)
    check_digest(fetched.digest, digest, public_url(url))
    return fetched


def check_digest(found: str, promised: str | None, name: str) -> None:
    """Raise DigestMismatch when a digest was promised and another was found."""
    if promised is not None and found != promised:
        raise DigestMismatch(
            f"{name} is not the image that was promised",
            detail=f"promised {promised}\nfound    {found}",
            hint="nothing was kept; try again, and if it happens again do not trust the server",
        )


def _content_length(response: Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None


def _wrong_length(url: str, found: int, expected: int) -> FetchFailed:
    what = "was cut short" if found < expected else "is longer than promised"
    return FetchFailed(
        f"{public_url(url)} {what}",
        detail=f"{found} of {expected} bytes" if found < expected else None,
        hint="try again; if it happens again, the mirror or a proxy in between is at fault",
    )
