"""What goes wrong between us and a server, in our words: one translator for requests' errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from armvm.base.errors import ArmvmError, FetchFailed, Unreachable
from armvm.images.reference import public_url

#: What helps when a server does not answer.
UNREACHABLE_HINT = (
    "check the network (behind a proxy set HTTPS_PROXY); ARMVM_MIRROR_DISTRO (ARMVM_MIRROR_UBUNTU, "
    "…) names another server for a distribution; without a network use --image local:debian-12, "
    "which is built here, or --image PATH for a file you have"
)


class Transient(Exception):
    """A failure that may pass; ``error`` is what the user is told when it does not.

    ``pause`` is how long the server asks us to stay away, in seconds. ``progressed`` tells that
    something worth having arrived before it: then the tries are counted anew.
    """

    def __init__(
        self, error: ArmvmError, *, pause: float | None = None, progressed: bool = False
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.pause = pause
        self.progressed = progressed


class Missing(FetchFailed):
    """The server says that it has no such file (404, 410): the one failure that means absence."""


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
        raise FetchFailed(
            f"{shown} is not a valid URL, or redirects to one that is not",
            detail=str(error),
            hint="check the URL, and the mirror if one is set",
        ) from error


@contextmanager
def translated_body(url: str) -> Iterator[None]:
    """As translated(), while a body arrives: a server that has begun to answer is there, so that
    everything that ends its answer early is Transient.
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
            f"{host} has no valid certificate",
            detail=_words(error),
            hint="check the clock; behind an inspecting proxy set REQUESTS_CA_BUNDLE",
        )
    if caused_by(requests.exceptions.InvalidSchema) and "SOCKS" in str(error):
        return Unreachable(
            f"{host} cannot be reached: this Python has no support for SOCKS proxies",
            hint="pip install 'requests[socks]', or set HTTPS_PROXY to an http:// proxy",
        )
    if caused_by(
        requests.exceptions.InvalidProxyURL,
        urllib3.exceptions.ProxySchemeUnknown,
        urllib3.exceptions.ProxySchemeUnsupported,
    ):
        return Unreachable(
            f"{host} cannot be reached: the proxy's URL is invalid",
            hint="check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY: http://HOST:PORT",
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
    if caused_by(requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError):
        return FetchFailed(
            f"{shown} is not a valid URL, or redirects to one that is not",
            detail=_words(error),
            hint="check the URL, and the mirror if one is set",
        )
    return FetchFailed(f"{shown} cannot be fetched", detail=_words(error), hint="try again later")


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
