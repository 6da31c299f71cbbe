"""HTTP as the images room uses it: one GET, redirects under control, errors in our words.

``requests`` is imported late, since ``armvm --help`` does not need it. Proxy variables and
``REQUESTS_CA_BUNDLE`` work as its documentation says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from armvm.errors import FetchFailed
from armvm.images.reference import public_url
from armvm.images.weberrors import UNREACHABLE_HINT, Transient, translated

if TYPE_CHECKING:
    from requests import Response, Session

T = TypeVar("T")

__all__ = ["UNREACHABLE_HINT", "Transient", "Web", "get", "new_session", "retrying", "translated"]

MAX_REDIRECTS = 5

#: Answers worth another try: too many requests, and a server in trouble.
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}


def new_session() -> Session:
    """Return a requests session that says who it is."""
    import requests

    from armvm import __version__

    session = requests.Session()
    session.headers["User-Agent"] = f"armvm/{__version__}"
    return session


@dataclass(frozen=True, kw_only=True)
class Web:
    """How servers are asked. Times are in seconds.

    ``read_timeout`` is the longest silence, not the longest download; an image of which fewer
    than ``slow_rate`` bytes a second came over ``slow_window`` is given up, too. A connection that
    breaks and an answer of 429 or 5xx are tried ``attempts`` times in all, after ``backoff``,
    twice that, … seconds, or what the server's Retry-After says, up to ``longest_pause``; once a
    good piece of an image has come, they count anew. ``session``, ``sleep`` and the clocks can be
    substituted.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    slow_rate: float = 1024.0
    slow_window: float = 60.0
    attempts: int = 4
    backoff: float = 1.0
    longest_pause: float = 120.0
    session: Callable[[], Session] = new_session
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time


def retrying(web: Web, action: Callable[[], T], *, warn: Callable[[str], None]) -> T:
    """Return what *action* returns, called again while it raises Transient; see Web."""
    attempt = 1
    while True:
        try:
            return action()
        except Transient as failure:
            if failure.progressed:
                attempt = 1
            if attempt >= web.attempts:
                raise failure.error from failure.__cause__
            pause = web.backoff * 2 ** (attempt - 1)
            if failure.pause is not None:
                pause = min(max(pause, failure.pause), web.longest_pause)
            attempt += 1
            warn(f"{failure.error.message}; trying again in {pause:g} s")
            web.sleep(pause)


@contextmanager
def get(
    web: Web,
    url: str,
    *,
    verified: bool,
    headers: dict[str, str] | None = None,
    accept: frozenset[int] = frozenset({200}),
) -> Iterator[Response]:
    """Open *url* and hand over the answer, its body still to be read.

    Its status is one of *accept*. *verified* tells that a digest will be checked: only then may
    a redirect lead from https to http. A user and password in the URL are for its own host, and
    go to no other. Errors while the body is read are translated too. Raises Transient around
    Unreachable (connection lost) or FetchFailed (408, 429, 5xx); Unreachable; FetchFailed.
    """
    with web.session() as session, translated(url):
        response = _follow(web, session, url, verified, headers or {})
        with response:
            _check_status(response, url, accept, web.now)
            yield response


def _follow(
    web: Web, session: Session, url: str, verified: bool, headers: dict[str, str]
) -> Response:
    timeout = (web.connect_timeout, web.read_timeout)
    for _ in range(MAX_REDIRECTS + 1):
        # requests would follow by itself; here each hop's scheme is looked at first.
        response = session.get(
            url, stream=True, timeout=timeout, headers=headers, allow_redirects=False
        )
        target = response.headers.get("Location")
        if response.status_code not in _REDIRECTS or not target:
            return response
        response.close()
        before, url = url, urljoin(url, target)
        scheme = urlsplit(url).scheme
        if scheme not in ("http", "https"):
            raise FetchFailed(f"{public_url(before)} redirects to a {scheme}: URL, not to http(s)")
        if scheme == "http" and urlsplit(before).scheme == "https" and not verified:
            raise FetchFailed(
                f"{public_url(before)} redirects from https to http, and no digest is known",
                hint="add #sha256=HEX to the URL",
            )
    raise FetchFailed(f"{public_url(url)} redirects more than {MAX_REDIRECTS} times")


def _check_status(
    response: Response, url: str, accept: frozenset[int], now: Callable[[], float]
) -> None:
    code = response.status_code
    if code in accept:
        return
    hint = {
        401: "the server wants a user and password",
        403: "the server refuses it; check the URL, and whether a proxy is in the way",
        404: "check the reference, or ARMVM_MIRROR_UBUNTU if it is set",
        407: "the proxy wants a user and password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
    }.get(code, "try again later")
    error = FetchFailed(
        f"{public_url(url)} answered {code} {response.reason or ''}".rstrip(), hint=hint
    )
    if code in _TRANSIENT:
        raise Transient(error, pause=_retry_after(response.headers.get("Retry-After"), now()))
    raise error


def _retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After asks for: a number, or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    with suppress(ValueError, TypeError, OverflowError):
        return max(parsedate_to_datetime(value).timestamp() - now, 0.0)
    return None
