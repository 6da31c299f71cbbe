"""URLs in the configuration: what is one, and how it is told."""

from __future__ import annotations

from urllib.parse import urlsplit

from armvm.errors import ConfigError
from armvm.spec.names import shown


def tree_url(url: str, origin: str) -> str:
    """Return a tree's URL with one slash at its end. Raises ConfigError when it is none."""
    text = url.strip()
    if not is_url(text):
        raise ConfigError(
            f"{origin} is no http(s) URL: {hidden(url)}",
            hint="it names a tree, for example https://cloud-images.ubuntu.com/releases/",
        )
    return text.rstrip("/") + "/"


def is_url(text: str) -> bool:
    """Tell whether a text is an http(s) URL of a file or folder: no query, no fragment."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return (
        bool(sound)
        and not (parts.query or parts.fragment)
        and text.isprintable()
        and (" " not in text)
    )


def hidden(url: str) -> str:
    """Return a URL fit for a message: without user name and password."""
    return shown(url.rpartition("@")[2], 120)


def without_login(url: str) -> str:
    """Return a URL without the user name and password that may stand in it."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
