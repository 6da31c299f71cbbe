"""Check URLs from the configuration, and print them without secrets."""

from __future__ import annotations

from urllib.parse import urlsplit

from armvm.base.errors import ConfigError
from armvm.settings.names import shown


def tree_url(url: str, origin: str) -> str:
    """Return a directory's URL with one slash at its end. Raises ConfigError if it is invalid."""
    text = url.strip()
    if is_url(text, query=True) and not is_url(text):
        raise ConfigError(
            f"{origin}: {hidden(url)} has a query (?…), but armvm appends file names to it",
            hint="remove the query; in catalogs, a url with {version} can have one",
        )
    if not is_url(text):
        raise ConfigError(
            f"{origin}: invalid http(s) URL {hidden(url)}",
            hint="expected a directory, for example https://cloud-images.ubuntu.com/releases/",
        )
    return text.rstrip("/") + "/"


def is_url(text: str, *, query: bool = False) -> bool:
    """Return whether a text is an http(s) URL of a file or directory, without a fragment.

    A query (a token, say) is accepted only with *query*.
    """
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return (
        bool(sound)
        and not parts.fragment
        and (query or not parts.query)
        and text.isprintable()
        and (" " not in text)
    )


def hidden(url: str) -> str:
    """Return a URL for messages: without user name, password and query."""
    return shown(_bare(url).rpartition("@")[2], 120)


def without_login(url: str) -> str:
    """Return a URL without user name, password and query."""
    scheme, separator, rest = _bare(url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _bare(url: str) -> str:
    """Return a URL without its query, which can contain a token."""
    bare, mark, _ = url.partition("?")
    return f"{bare}{mark}…" if mark else bare
