"""HTTP as the images room uses it: one GET, redirects under control, errors in our words.

``requests`` is imported late, since ``armvm --help`` does not need it. Proxy variables and
``REQUESTS_CA_BUNDLE`` work as its documentation says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from armvm.errors import ArmvmError, FetchFailed, Unreachable
from armvm.images.reference import public_url

if TYPE_CHECKING:
    from requests import Response, Session

T = TypeVar("T")

#: What helps when a server does not answer.
UNREACHABLE_HINT = (
    "check the network (behind a proxy set HTTPS_PROXY); ARMVM_MIRROR_UBUNTU names another "
    "server for Ubuntu's images; without a network use --image local:debian-12, which is built "
    "here, or --image PATH for a file you have"
)

MAX_REDIRECTS = 5

#: Answers worth another try: too many requests, and a server in trouble.
_TRANSIENT = {429, 500, 502, 503, 504}
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

    ``read_timeout`` is the longest silence, not the longest download. A connection that breaks
    and an answer of 429 or 5xx are tried ``attempts`` times in all, after ``backoff``, twice
    that, … seconds. ``session`` and ``sleep`` can be substituted.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    attempts: int = 4
    backoff: float = 1.0
    session: Callable[[], Session] = new_session
    sleep: Callable[[float], None] = time.sleep


class Transient(Exception):
    """A failure that may pass; ``error`` is what the user is told when it does not."""

    def __init__(self, error: ArmvmError) -> None:
        super().__init__(error.message)
        self.error = error


def retrying(web: Web, action: Callable[[], T], *, warn: Callable[[str], None]) -> T:
    """Return what *action* returns, called again while it raises Transient; see Web."""
    for attempt in range(1, max(web.attempts, 1) + 1):
        try:
            return action()
        except Transient as failure:
            if attempt >= web.attempts:
                raise failure.error from failure.__cause__
            pause = web.backoff * 2 ** (attempt - 1)
            warn(f"{failure.error.message}; trying again in {pause:g} s")
            web.sleep(pause)
    raise AssertionError("unreachable")


@contextmanager
def get(
    web: Web, url: str, *, verified: bool, headers: dict[str, str] | None = None
) -> Iterator[Response]:
    """Open *url* and hand over the answer with status 200, its body still to be read.

    *verified* tells that a digest will be checked: only then may a redirect lead from https to
    http. Errors while the body is read are translated too. Raises Transient around Unreachable
    (connection lost) or FetchFailed (429, 5xx); Unreachable; FetchFailed.
    """
    with web.session() as session, translated(url):
        response = _follow(web, session, url, verified, headers or {})
        with response:
            _check_status(response, url)
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


def _check_status(response: Response, url: str) -> None:
    code = response.status_code
    if code == 200:
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
    raise Transient(error) if code in _TRANSIENT else error


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what requests and urllib3 raise into Transient, Unreachable and FetchFailed."""
    import requests
    import urllib3

    shown = public_url(url)
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _translate(error, shown) from error
    except UnicodeError as error:  # a host name that is no IDNA
        raise FetchFailed(f"{shown} is no URL that can be asked", detail=str(error)) from error


def _translate(error: Exception, shown: str) -> Exception:
    import requests
    import urllib3

    host = urlsplit(shown).netloc or shown
    causes = list(_chain(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if caused_by(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
        return Unreachable(
            f"{host} has no valid certificate",
            detail=_words(error),
            hint="check the clock; behind an inspecting proxy set REQUESTS_CA_BUNDLE",
        )
    if caused_by(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
        return Unreachable(
            f"the proxy did not let us reach {host}", detail=_words(error), hint=UNREACHABLE_HINT
        )
    # In urllib3 1.26, a refused connection (NewConnectionError) is a kind of time-out.
    refused = caused_by(urllib3.exceptions.NewConnectionError)
    if not refused and caused_by(requests.Timeout, urllib3.exceptions.TimeoutError):
        return Unreachable(f"{host} did not answer in time", hint=UNREACHABLE_HINT)
    if caused_by(urllib3.exceptions.IncompleteRead):
        return FetchFailed(f"{shown} was cut short", detail=_words(error), hint="try again")
    if caused_by(ConnectionResetError, BrokenPipeError, ConnectionAbortedError):
        lost = Unreachable(f"{host} broke the connection", hint=UNREACHABLE_HINT)
        return Transient(lost)
    if refused or caused_by(requests.ConnectionError):
        return Unreachable(f"{host} cannot be reached", detail=_words(error), hint=UNREACHABLE_HINT)
    return FetchFailed(f"{shown} cannot be fetched", detail=_words(error))


def _words(error: Exception) -> str:
    """Return what an error says, without the URL asked for: it can hold a password or a token."""
    # MaxRetryError's own text begins with the URL; its reason is what happened.
    inner = getattr(error.args[0], "reason", None) if error.args else None
    text = str(inner or error)
    return type(error).__name__ if "://" in text or "url:" in text else text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it wraps: requests and urllib3 keep causes in ``args`` as well."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [
            cause
            for cause in (
                current.__cause__,
                current.__context__,
                getattr(current, "reason", None),
                *current.args,
            )
            if isinstance(cause, BaseException)
        ]
