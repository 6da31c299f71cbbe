"""Paths in the values of command-line options."""

from __future__ import annotations

import errno
from pathlib import Path

from armvm.base.errors import ConfigError, NotFound
from armvm.settings.names import shown


def given_path(text: str, what: str = "path") -> Path:
    """Return a path from the user; ``~`` is the home directory, as in shells.

    Shells do not expand it after ``--option=``. Raises ConfigError for an empty path, which would
    be the working directory, for one that is too long, and for the home of a user who does not
    exist.
    """
    if not text:
        raise ConfigError(
            f"invalid {what} '': it is empty", hint="is a variable in your script unset?"
        )
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"invalid {what} {shown(text)}: it is too long") from error
    except ValueError as error:  # a NUL
        raise ConfigError(f"invalid {what} {shown(text)}: {error}") from error
    except RuntimeError as error:
        raise ConfigError(
            f"invalid path {shown(text)}: user not found",
            hint="write ./~NAME for a file with that name",
        ) from error
    return path


def absolute(path: Path) -> Path:
    """Return the absolute form of a path, with its links and ``..``.

    Raises NotFound for a relative path if the current directory was deleted.
    """
    try:
        return path.absolute()
    except FileNotFoundError as error:
        raise lost_directory() from error


def lost_directory() -> NotFound:
    """Return the error for a current directory that was deleted."""
    return NotFound("the current directory no longer exists", hint="change to another: cd")
