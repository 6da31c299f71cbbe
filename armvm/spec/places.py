"""Where something is: a URL in the configuration, and a key in its file."""

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


def line_of(text: str, table: str, key: str | None) -> int | None:
    """Return the number of the line where a table's key stands, as far as that can be told.

    TOML's parser keeps no positions; a table or key written in another way is not found.
    """
    inside, begin = False, None
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            inside = bare.partition("#")[0].strip(" []").replace('"', "") == table
            begin = number if inside else begin
        elif inside and key and bare.partition("=")[0].strip().strip("\"'") == key:
            return number
    return begin
