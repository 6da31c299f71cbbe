"""Fetching a small document over HTTP into memory: bounded in bytes, in memory and in patience."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from armvm.base.errors import FetchFailed, Unreachable
from armvm.base.progress import Progress, size_text
from armvm.images.fetch.http import UNREACHABLE_HINT, Transient, Web, get, retrying
from armvm.images.fetch.http_errors import translated_body
from armvm.images.reference import public_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import Response

#: The largest catalog, in bytes, after decompression (Ubuntu's has about 2.5 MiB).
MAX_DOCUMENT = 16 << 20

#: The largest checksum file, in bytes (most have under 10 kB).
MAX_CHECKSUMS = 4 << 20

#: Bytes asked of the connection at once; as many come as are there.
CHUNK = 256 << 10


def document(
    web: Web, url: str, *, progress: Progress, limit: int = MAX_DOCUMENT, page: bool = False
) -> bytes:
    """Return the body at *url*, of *limit* bytes at most; a web page only where a *page* will do.

    A network that asks people to log in answers with its own page, whatever is asked for.

    A server that compresses it may send fewer; what is counted is what comes out. Memory is
    taken for *limit* bytes twice at most. Raises Unreachable and FetchFailed.
    """
    headers = {"Accept-Encoding": "gzip"}

    def attempt() -> bytes:
        with get(web, url, verified=False, headers=headers) as response, translated_body(url):
            body = _Body(url, response.headers.get("Content-Encoding", ""), limit)
            for chunk in chunks(web, url, response):
                body.take(chunk)
            return body.whole()

    body = retrying(web, attempt, warn=progress.warn)
    # No catalog, checksum file, signature or key begins so.
    if not page and body[:256].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise no_catalog(url, "is a web page, not a catalog (a login page?)")
    return body


def no_catalog(url: str, why: str) -> FetchFailed:
    """Return the error for a server that answers, but not as a catalog does."""
    return FetchFailed(
        f"{public_url(url)} {why}",
        hint="open it in a browser: some networks ask to log in first; "
        "check the mirror if one is set",
    )


class _Body:
    """A document as it arrives: what is compressed never becomes more than *limit* bytes."""

    def __init__(self, url: str, encoding: str, limit: int) -> None:
        self._url, self._limit, self._data, self._came = url, limit, bytearray(), 0
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise FetchFailed(
                f"{public_url(url)} is sent as {ascii(encoding)[:40]}, which was not asked for",
                hint="the server or a proxy in between is at fault",
            )
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS) if "gzip" in encoding else None

    def take(self, chunk: bytes) -> None:
        self._came += len(chunk)
        if self._zlib is not None and self._zlib.eof:
            chunk = b""  # padding; zlib would collect it
        elif self._zlib is not None:
            room = self._limit + 1 - len(self._data)
            try:
                chunk = self._zlib.decompress(chunk, room)
            except zlib.error as error:
                raise FetchFailed(
                    f"{public_url(self._url)} cannot be decompressed",
                    detail=str(error),
                    hint="the server or a proxy in between is at fault",
                ) from error
        self._data += chunk
        if max(len(self._data), self._came) > self._limit:
            raise FetchFailed(
                f"{public_url(self._url)} is larger than {size_text(self._limit)}",
                hint="no catalog has a document of that size: check the mirror if one is set",
            )

    def whole(self) -> bytes:
        if self._zlib is not None and self._data and not self._zlib.eof:
            raise Transient(FetchFailed(f"{public_url(self._url)} was cut short", hint="try again"))
        return bytes(self._data)


def chunks(web: Web, url: str, response: Response) -> Iterator[bytes]:
    """Yield a body's bytes as they come. Raises Transient where they come too slowly; see Web."""
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
        f"{public_url(url)} comes too slowly: {size_text(count)} in {seconds:.0f} s",
        hint=UNREACHABLE_HINT,
    )
