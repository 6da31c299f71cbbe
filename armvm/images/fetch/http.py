"""HTTP for images: GET with controlled redirects and translated errors.

``requests`` is imported late, because ``armvm --help`` does not need it. Proxy variables and
``REQUESTS_CA_BUNDLE`` work as in its documentation.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from armvm.base.errors import FetchFailed, Unreachable
from armvm.images.fetch.http_errors import (
    UNREACHABLE_HINT,
    Missing,
    Transient,
    status_text,
    translated,
)
from armvm.images.reference import public_url

if TYPE_CHECKING:
    from requests import Response, Session

T = TypeVar("T")

__all__ = [
    "UNREACHABLE_HINT",
    "Missing",
    "Transient",
    "Web",
    "get",
    "new_session",
    "retrying",
    "translated",
]

MAX_REDIRECTS = 5

#: Status codes to retry: too many requests, too early (openSUSE's mirrors), and server
#: errors.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
#: The hint for servers that violate the protocol.
_AT_FAULT = "the error is in the mirror or a proxy"
REDIRECTS = {301, 302, 303, 307, 308}


def new_session() -> Session:
    """Return a requests session with armvm's User-Agent."""
    import requests

    from armvm import __version__

    session = requests.Session()
    session.headers["User-Agent"] = f"armvm/{__version__}"
    return session


def ignore_redirects(session: Session) -> None:
    """Make a session leave redirects alone: armvm follows them itself.

    By default, requests resolves a redirect even if it does not follow it: it reads the whole
    body, and raises ValueError for some targets.
    """
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign] # noqa: ARG005


@dataclass(frozen=True, kw_only=True)
class Web:
    """Time-outs and retries. Times are in seconds.

    ``read_timeout`` limits each silence, not the whole download. A transfer slower than
    ``slow_rate`` bytes a second over ``slow_window`` is aborted, and so is a server that takes
    longer than both for its headers. A lost
    connection and a status of 425, 429 or 5xx are retried: ``attempts`` in all, after ``backoff``,
    twice that, … seconds, or the server's Retry-After, up to ``longest_pause``. The count
    restarts once a good piece of an image has arrived. ``session``, ``sleep`` and the clocks can be
    replaced in tests.
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
    """Return the result of *action*, retried while it raises Transient; see Web."""
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
            warn(f"{failure.error.message}; retrying in {pause:g} s")
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
    """Open *url* and yield the response; its body is not read yet.

    Its status is one of *accept*. *verified* says that a digest will be checked: only then may
    a redirect lead from https to http. A user and password in the URL are sent only to its own
    host. Errors while the body is read are translated too. Raises Transient around
    Unreachable (connection lost) or FetchFailed (408, 425, 429, 5xx); Unreachable; Missing (404,
    410); FetchFailed.
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
    ignore_redirects(session)
    for _ in range(MAX_REDIRECTS + 1):
        # requests would follow redirects itself; armvm checks the scheme of each hop first.
        response = _within(
            max(web.slow_window, web.read_timeout),
            url,
            partial(
                session.get,
                url,
                stream=True,
                timeout=timeout,
                headers=headers,
                allow_redirects=False,
            ),
        )
        target = response.headers.get("Location")
        if response.status_code not in REDIRECTS or not target:
            return response
        response.close()
        before = url
        url, scheme = _target(url, target)
        if scheme not in ("http", "https"):
            raise FetchFailed(
                f"{public_url(before)} redirects to a {scheme}: URL, not to http(s)", hint=_AT_FAULT
            )
        if scheme == "http" and urlsplit(before).scheme == "https" and not verified:
            raise FetchFailed(
                f"{public_url(before)} redirects from https to http, without a known digest",
                hint="use an https URL, or append #sha256=HEX to an image's URL",
            )
    raise FetchFailed(
        f"{public_url(url)} redirects more than {MAX_REDIRECTS} times", hint=_AT_FAULT
    )


def _within(seconds: float, url: str, action: Callable[[], Response]) -> Response:
    """Return the result of *action*; raise Transient if it takes longer than *seconds*.

    requests limits only each silence: a server could send its headers byte by byte for ever. An
    aborted request ends with its connection, in a thread of its own.
    """
    answers: queue.SimpleQueue[Response | BaseException] = queue.SimpleQueue()
    given_up = threading.Event()

    def run() -> None:
        try:
            response = action()
        except BaseException as error:  # raised again in the waiting thread
            answers.put(error)
            return
        answers.put(response)
        if given_up.is_set():
            response.close()

    threading.Thread(target=run, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        given_up.set()
        host = urlsplit(public_url(url)).netloc
        raise Transient(
            Unreachable(
                f"timed out after {seconds:g} s: {host} did not answer", hint=UNREACHABLE_HINT
            )
        ) from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _target(url: str, location: str) -> tuple[str, str]:
    """Return a redirect's target and its scheme. Raises FetchFailed for an invalid URL."""
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        parts.hostname, parts.port  # noqa: B018 - each may raise ValueError
    except ValueError as error:
        raise FetchFailed(
            f"{public_url(url)} redirects to an invalid URL: {ascii(location)[:120]}",
            hint=_AT_FAULT,
        ) from error
    return target, parts.scheme


def _check_status(
    response: Response, url: str, accept: frozenset[int], now: Callable[[], float]
) -> None:
    code = response.status_code
    if code in accept:
        return
    hint = {
        401: "the server requires a user and password",
        403: "the server denies access; check the URL and the proxy",
        404: "check the reference or the URL, and the mirror if one is set",
        407: "the proxy requires a user and password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
    }.get(code, "try again later")
    error = (Missing if code in (404, 410) else FetchFailed)(
        f"{public_url(url)} answered {status_text(code)}", hint=hint
    )
    if code in TRANSIENT:
        raise Transient(error, pause=_retry_after(response.headers.get("Retry-After"), now()))
    raise error


def _retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds in a Retry-After: a number, or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    with suppress(ValueError, TypeError, OverflowError):
        return max(parsedate_to_datetime(value).timestamp() - now, 0.0)
    return None
