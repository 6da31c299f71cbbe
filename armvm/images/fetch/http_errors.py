"""Translate errors of requests and urllib3 into armvm's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from urllib.parse import urlsplit

from armvm.base.errors import ArmvmError, FetchFailed, Unreachable
from armvm.images.reference import public_url

#: The hint if a server does not answer.
UNREACHABLE_HINT = "check the host's name and the network (behind a proxy set HTTPS_PROXY)"
#: The same for a server of a catalog or of its images.
CATALOG_HINT = (
    "check the network (behind a proxy set HTTPS_PROXY); ARMVM_MIRROR_DISTRO (ARMVM_MIRROR_UBUNTU, "
    "…) sets another server for a distribution; without a network use --image local:debian-12, "
    "which armvm builds on this host, or --image PATH for a local file"
)


class Transient(Exception):
    """A failure that may be temporary; ``error`` is raised if it persists.

    ``pause`` is the server's requested delay, in seconds. ``progressed`` says that useful data
    arrived before it: the count of attempts then restarts.
    """

    def __init__(
        self, error: ArmvmError, *, pause: float | None = None, progressed: bool = False
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.pause = pause
        self.progressed = progressed


class Missing(FetchFailed):
    """The server says that the file does not exist (404, 410)."""


@contextmanager
def of_catalog() -> Iterator[None]:
    """Let errors of servers that do not answer suggest another source of a catalog's images."""
    try:
        yield
    except Unreachable as error:
        if error.hint == UNREACHABLE_HINT:
            error.hint = CATALOG_HINT
        raise


def status_text(code: int) -> str:
    """Return a status with its usual phrase: a server's own is untrusted text."""
    with suppress(ValueError):
        return f"{code} {HTTPStatus(code).phrase}"
    return str(code)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Translate errors of requests and urllib3 into Transient, Unreachable and FetchFailed."""
    import requests
    import urllib3

    shown = public_url(url)
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _translate(error, shown) from error
    except UnicodeError as error:  # a host name that is not valid IDNA
        raise FetchFailed(
            f"{shown} is not a valid URL, or redirects to one that is not",
            detail=str(error),
            hint="check the URL, and the mirror if one is set",
        ) from error


@contextmanager
def translated_body(url: str) -> Iterator[None]:
    """Translate errors while a body arrives: the server has started to answer, so everything that
    ends its answer early is Transient.
    """
    import requests
    import urllib3

    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        told = _translate(error, public_url(url))
        raise told if isinstance(told, Transient) else Transient(told) from error


def _translate(error: Exception, shown: str) -> ArmvmError | Transient:
    import requests
    import urllib3

    host = urlsplit(shown).netloc or shown
    causes = list(_chain(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if caused_by(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
        return Unreachable(
            f"{host} has an invalid certificate",
            detail=_words(error),
            hint="check the clock; behind an inspecting proxy set REQUESTS_CA_BUNDLE",
        )
    if caused_by(requests.exceptions.InvalidSchema) and "SOCKS" in str(error):
        return Unreachable(
            f"cannot connect to {host}: this Python does not support SOCKS proxies",
            hint="pip install 'requests[socks]', or set HTTPS_PROXY to an http:// proxy",
        )
    if caused_by(
        requests.exceptions.InvalidProxyURL,
        urllib3.exceptions.ProxySchemeUnknown,
        urllib3.exceptions.ProxySchemeUnsupported,
    ):
        return Unreachable(
            f"cannot connect to {host}: the proxy's URL is invalid",
            hint="check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY: http://HOST:PORT",
        )
    if caused_by(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
        return Unreachable(
            f"the proxy refused the connection to {host}",
            detail=_words(error),
            hint=UNREACHABLE_HINT,
        )
    # In urllib3 1.26, a refused connection (NewConnectionError) is a subclass of its timeout.
    refused = caused_by(urllib3.exceptions.NewConnectionError)
    if not refused and caused_by(requests.Timeout, urllib3.exceptions.TimeoutError):
        return Unreachable(f"timed out: {host} did not answer", hint=UNREACHABLE_HINT)
    if caused_by(urllib3.exceptions.IncompleteRead):
        return FetchFailed(f"{shown} is truncated", detail=_words(error), hint="try again")
    if caused_by(ConnectionResetError, BrokenPipeError, ConnectionAbortedError):
        lost = Unreachable(f"{host} closed the connection", hint=UNREACHABLE_HINT)
        return Transient(lost)
    if refused or caused_by(requests.ConnectionError):
        return Unreachable(f"cannot connect to {host}", detail=_words(error), hint=UNREACHABLE_HINT)
    if caused_by(requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError):
        return FetchFailed(
            f"{shown} is not a valid URL, or redirects to one that is not",
            detail=_words(error),
            hint="check the URL, and the mirror if one is set",
        )
    return FetchFailed(f"cannot download {shown}", detail=_words(error), hint="try again later")


def _words(error: Exception) -> str:
    """Return an error's text without the requested URL, which can contain a password or token."""
    # MaxRetryError's own text starts with the URL; its reason is the actual error.
    inner = getattr(error.args[0], "reason", None) if error.args else None
    text = str(inner or error)
    return type(error).__name__ if "://" in text or "url:" in text else text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; requests and urllib3 also keep causes in ``args``."""
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
