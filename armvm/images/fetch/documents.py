"""Download a small document into memory, with limits on bytes, memory and time."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from armvm.base.errors import FetchFailed, Unreachable
from armvm.base.progress import Progress, size_text
from armvm.images.fetch.http import UNREACHABLE_HINT, Transient, Web, get, retrying
from armvm.images.fetch.http_errors import of_catalog, translated_body
from armvm.images.reference import public_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import Response

#: Maximum size of a catalog, in bytes, decompressed (Ubuntu's has about 2.5 MiB).
MAX_DOCUMENT = 16 << 20

#: Maximum size of a checksum file, in bytes (most have under 10 kB).
MAX_CHECKSUMS = 4 << 20

#: Maximum bytes per read; a read returns the bytes received so far.
CHUNK = 256 << 10


def document(
    web: Web, url: str, *, progress: Progress, limit: int = MAX_DOCUMENT, page: bool = False
) -> bytes:
    """Return the body at *url*, at most *limit* bytes; web pages only with *page*.

    A network with a login page answers with that page, whatever the URL.

    The limit applies to the decompressed body. It uses at most twice *limit* bytes of memory.
    Raises Unreachable and FetchFailed.
    """
    headers = {"Accept-Encoding": "gzip"}

    def attempt() -> bytes:
        with get(web, url, verified=False, headers=headers) as response, translated_body(url):
            body = _Body(url, response.headers.get("Content-Encoding", ""), limit)
            for chunk in chunks(web, url, response):
                body.take(chunk)
            return body.whole()

    with of_catalog():
        body = retrying(web, attempt, warn=progress.warn)
    # No catalog, checksum file, signature or key starts like this.
    if not page and body[:256].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise no_catalog(url, "is a web page, not a catalog (perhaps a login page)")
    return body


def landing(web: Web, url: str, *, progress: Progress) -> str:
    """Return the URL that *url* redirects to, or *url* itself; the body is not read.

    Raises Unreachable and FetchFailed.
    """

    def attempt() -> str:
        with get(web, url, verified=False) as response:
            return str(response.url)

    with of_catalog():
        return retrying(web, attempt, warn=progress.warn)


def no_catalog(url: str, why: str) -> FetchFailed:
    """Return the error for a server that answers without a catalog."""
    return FetchFailed(
        f"{public_url(url)} {why}",
        hint="open it in a browser: some networks require a login first; "
        "check the mirror if one is set",
    )


class _Body:
    """A document as it arrives, decompressed to at most *limit* bytes."""

    def __init__(self, url: str, encoding: str, limit: int) -> None:
        self._url, self._limit, self._data, self._came = url, limit, bytearray(), 0
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise FetchFailed(
                f"{public_url(url)} uses an unsupported encoding: {ascii(encoding)[:40]}",
                hint="the error is in the server or a proxy",
            )
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS) if "gzip" in encoding else None

    def take(self, chunk: bytes) -> None:
        self._came += len(chunk)
        if self._zlib is not None and self._zlib.eof:
            chunk = b""  # padding, which zlib would collect
        elif self._zlib is not None:
            room = self._limit + 1 - len(self._data)
            try:
                chunk = self._zlib.decompress(chunk, room)
            except zlib.error as error:
                raise FetchFailed(
                    f"{public_url(self._url)} cannot be decompressed",
                    detail=str(error),
                    hint="the error is in the server or a proxy",
                ) from error
        self._data += chunk
        if max(len(self._data), self._came) > self._limit:
            raise FetchFailed(
                f"{public_url(self._url)} is larger than {size_text(self._limit)}",
                hint="catalogs are smaller: check the mirror if one is set",
            )

    def whole(self) -> bytes:
        if self._zlib is not None and self._data and not self._zlib.eof:
            raise Transient(FetchFailed(f"{public_url(self._url)} is truncated", hint="try again"))
        return bytes(self._data)


def chunks(web: Web, url: str, response: Response) -> Iterator[bytes]:
    """Yield a body's bytes as they arrive. Raises Transient if they arrive too slowly; see Web."""
    since, count = web.clock(), 0
    while chunk := response.raw.read1(CHUNK, decode_content=False):
        yield chunk
        count += len(chunk)
        now = web.clock()
        if now - since >= web.slow_window:
            if count < web.slow_rate * web.slow_window:
                raise Transient(_too_slow(url, count, now - since))
            since, count = now, 0


def _too_slow(url: str, count: int, seconds: float) -> Unreachable:
    return Unreachable(
        f"{public_url(url)} is too slow: {size_text(count)} in {seconds:.0f} s",
        hint=UNREACHABLE_HINT,
    )
