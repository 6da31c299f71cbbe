"""Download an image to a file and hash it on the way; for documents, see documents.py.

Interrupted downloads are resumed: ``Range`` requests the rest, and ``If-Range`` makes a server
whose file has changed send all of it (RFC 9110, sections 13.1.5 and 14).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from armvm.base.errors import ArmvmError, FetchFailed, Unreachable
from armvm.base.progress import Progress, size_text
from armvm.images.digest import check_digest
from armvm.images.fetch.documents import chunks
from armvm.images.fetch.http import Transient, Web, get, retrying
from armvm.images.fetch.http_errors import translated_body
from armvm.images.fetch.part import Origin, Part
from armvm.images.fetch.sink import Intake, Taken
from armvm.images.reference import public_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Response

__all__ = ["Fetched", "check_digest", "download"]

#: Maximum size of an image, in bytes (64 GiB; most have under 1 GiB).
MAX_IMAGE = 64 << 30

#: Bytes between two checks of the free space, for an image of unknown length.
_ROOM = 64 << 20

#: Number of new bytes after which the count of attempts restarts.
WORTH = 1 << 20

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A finished download, as published: ``digest`` is its ``sha256:HEX``, ``size`` in bytes.

    ``published`` is the digest of the promised kind. ``unpacked`` is the sha256 of the unpacked
    image if it was packed (gzip, xz, zstd), else None.
    """

    digest: str
    published: str
    size: int
    unpacked: str | None = None


def download(
    web: Web,
    url: str,
    part: Part,
    unpacked: Path,
    *,
    label: str,
    progress: Progress,
    digest: str | None = None,
    size: int | None = None,
    room: Callable[[int], None] = lambda _: None,
) -> Fetched:
    """Download the body at *url* to *part*, and unpack it to *unpacked* if it is packed.

    *digest* (``sha256:`` or ``sha512:``) and *size* are the expected ones, if known.
    *room* is called with the number of bytes that follow, and raises if they do not fit.

    After a temporary failure (a server error, Ctrl-C, SIGKILL) the part stays, and the next call
    resumes there; after any other failure it is removed. Raises Unreachable, FetchFailed (no such
    file, truncated, too long), DigestMismatch, HostileImage (a bomb, invalid compression);
    OSError if writing fails.
    """
    name = public_url(url)
    intake = Intake(part, promised=digest, unpacked=unpacked, name=name, room=room)
    one = _Download(web, url, part, intake, label, progress, digest, size, room)
    done = False
    try:
        one.recall()
        taken = one.run()
        if digest is not None and taken.promised != digest and one.pieced:
            # A date as validator has a resolution of a second, and data lost in a power failure is
            # noticed only here: the digest of the whole file decides.
            progress.warn(f"{name}: the resumed download does not match its digest; restarting")
            intake.restart()
            taken = one.run()
        check_digest(taken.promised, digest, name)
        done = True
    except (Unreachable, _MayPass):
        raise
    except (ArmvmError, OSError):
        part.discard()
        raise
    finally:
        intake.close()
        if not done and not part.size():
            part.discard()
    return Fetched(
        digest=taken.sha256, published=taken.promised, size=intake.size, unpacked=taken.unpacked
    )


class _MayPass(FetchFailed):
    """A FetchFailed that may be temporary."""


@dataclass
class _Download:
    """One download; *pieced* says that its bytes come from several responses."""

    web: Web
    url: str
    part: Part
    intake: Intake
    label: str
    progress: Progress
    digest: str | None
    size: int | None
    room: Callable[[int], None]
    pieced: bool = False

    def recall(self) -> None:
        """Load an earlier process's part, if the download can be resumed from it."""
        origin, have, promised = self.part.origin(), self.part.size(), self.digest is not None
        sound = origin is not None and origin.continues(self.url, promised=promised)
        if sound and origin is not None and origin.total is not None:
            # A complete part is not requested again: the digest must confirm it.
            sound = have < origin.total + promised and self.size in (None, origin.total)
        if not sound or not have:
            self.intake.restart()
            return
        with self.progress.task(f"{self.label}: reading the partial download", total=have) as task:
            self.intake.recall(have, task.update)
        self.pieced = True

    def run(self) -> Taken:
        """Download the missing bytes, with retries, and return the digests."""

        most = self.intake.size

        def attempt() -> None:
            nonlocal most
            try:
                self._attempt()
            except Transient as failure:
                # Only new bytes count as progress, not the same ones downloaded again.
                progressed = self.intake.size - most >= WORTH
                most = max(most, self.intake.size)
                error = failure.error
                if isinstance(error, FetchFailed):
                    error = _MayPass(error.message, detail=error.detail, hint=error.hint)
                raise Transient(
                    error, pause=failure.pause, progressed=progressed
                ) from failure.__cause__

        retrying(self.web, attempt, warn=self.progress.warn)
        return self.intake.finish()

    def _attempt(self) -> None:
        # identity: the digest is of the published file, so no transfer compression.
        headers = {"Accept-Encoding": "identity"}
        accept = {200}
        verified = self.digest is not None
        origin = self.part.origin() if self.intake.size else None
        validator = origin and origin.continues(self.url, promised=verified) and origin.validator
        if origin is None or not validator:
            self.intake.restart()
            origin = None
        elif self.intake.size == origin.total:
            return  # only the digest had to be checked
        else:
            headers["Range"] = f"bytes={self.intake.size}-"
            headers["If-Range"] = validator
            accept |= {206, 416}
        with get(
            self.web, self.url, verified=verified, headers=headers, accept=frozenset(accept)
        ) as response:
            if response.status_code == 200:
                total = _content_length(response)
                if self.intake.size:
                    self.progress.say(f"{public_url(self.url)} restarts from the beginning")
                    self.intake.restart()
            elif origin is not None and (total := _rest(response, self.intake.size, origin)) != -1:
                self.pieced = True
            else:  # the file is shorter now, or the server sent a different range
                self.intake.restart()
                self.part.note.unlink(missing_ok=True)
                raise Transient(_odd_range(self.url, response.status_code))
            self._receive(response, total)

    def _receive(self, response: Response, total: int | None) -> None:
        intake, url = self.intake, self.url
        expected = total if self.size is None else self.size
        if (expected or 0) > MAX_IMAGE:
            raise _too_large(url)
        if total is not None and total != expected:
            raise _wrong_length(url, total, expected or 0)
        if expected is not None:
            self.room(expected - intake.size)
        if not intake.size:
            etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
            self.part.describe(Origin.of(url, total=expected, etag=etag, modified=modified))
        told = 0.0
        with self.progress.task(self.label, total=expected) as task:
            task.update(intake.size)
            with translated_body(url):
                for chunk in chunks(self.web, url, response):
                    if expected is None:
                        self._check_size(len(chunk))
                    intake.put(chunk)
                    if expected is not None and intake.size > expected:
                        raise _wrong_length(url, intake.size, expected)
                    now = self.web.clock()
                    if now - told >= 0.1:
                        told = now
                        task.update(intake.size)
            task.update(intake.size)
            if expected is not None and intake.size != expected:
                # Without a Content-Length, a truncated response looks complete.
                raise Transient(_wrong_length(url, intake.size, expected))

    def _check_size(self, coming: int) -> None:
        """Check limit and free space for the next bytes of a body of unknown length."""
        size = self.intake.size
        if size + coming > MAX_IMAGE:
            raise _too_large(self.url)
        if size // _ROOM != (size + coming) // _ROOM or not size:
            self.room(_ROOM)


def _rest(response: Response, start: int, origin: Origin) -> int | None:
    """Return the whole file's size if a 206 response has the requested rest; -1 if not."""
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if response.status_code != 206 or found is None or int(found[1]) != start:
        return -1
    total = origin.total if found[3] == "*" else int(found[3])
    if origin.total not in (None, total) or (total is not None and int(found[2]) >= total):
        return -1
    etag = response.headers.get("ETag")
    return -1 if etag is not None and origin.etag not in (None, etag) else total


def _too_large(url: str) -> FetchFailed:
    return FetchFailed(
        f"{public_url(url)} is larger than {size_text(MAX_IMAGE)}",
        hint="cloud images are smaller: check the URL",
    )


def _odd_range(url: str, status: int) -> FetchFailed:
    return FetchFailed(
        f"{public_url(url)} cannot resume the download (status {status}): restarting",
        hint="try again; if this persists, the error is in the mirror or a proxy",
    )


def _content_length(response: Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None


def _wrong_length(url: str, found: int, expected: int) -> FetchFailed:
    what = "is truncated" if found < expected else "is longer than expected"
    return FetchFailed(
        f"{public_url(url)} {what}",
        detail=f"{found} of {expected} bytes" if found < expected else None,
        hint="try again; if this persists, the error is in the mirror or a proxy",
    )
