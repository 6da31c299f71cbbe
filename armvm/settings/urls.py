"""URLs in the configuration: what is one, and how it is told."""

from __future__ import annotations

from urllib.parse import urlsplit

from armvm.base.errors import ConfigError
from armvm.settings.names import shown


def tree_url(url: str, origin: str) -> str:
    """Return a tree's URL with one slash at its end. Raises ConfigError when it is none."""
    text = url.strip()
    if is_url(text, query=True) and not is_url(text):
        raise ConfigError(
            f"{origin}: {hidden(url)} has a query (?…), and names of files are put behind it",
            hint="a tree is named without one; a catalog with url = and {version} can have one",
        )
    if not is_url(text):
        raise ConfigError(
            f"{origin} is no http(s) URL: {hidden(url)}",
            hint="it names a tree, for example https://cloud-images.ubuntu.com/releases/",
        )
    return text.rstrip("/") + "/"


def is_url(text: str, *, query: bool = False) -> bool:
    """Tell whether a text is an http(s) URL of a file or folder, without a fragment.

    Only where a *query* may be in it (a token, say) is one taken.
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
    """Return a URL fit for a message: without user name, password and query."""
    return shown(_bare(url).rpartition("@")[2], 120)


def without_login(url: str) -> str:
    """Return a URL without the user name, password and query that may stand in it."""
    scheme, separator, rest = _bare(url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _bare(url: str) -> str:
    """Return a URL without its query, which can hold a token."""
    bare, mark, _ = url.partition("?")
    return f"{bare}{mark}…" if mark else bare
