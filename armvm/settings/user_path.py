"""Paths that a user gives: on the command line, as a part of an option."""

from __future__ import annotations

from pathlib import Path

from armvm.base.errors import ConfigError
from armvm.settings.names import shown


def given_path(text: str, what: str = "path") -> Path:
    """Return the path that a user gave; ``~`` is the home directory, as shells have it.

    They do not expand it after ``--option=``. Raises ConfigError for an empty path, which would
    be the working directory, and for the home of a user who does not exist.
    """
    if not text:
        raise ConfigError(
            f"'' is no {what}: it is empty", hint="is a variable of your script not set?"
        )
    try:
        return Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError as error:
        raise ConfigError(
            f"{shown(text)}: there is no such user's home", hint="./~NAME is a file of that name"
        ) from error
