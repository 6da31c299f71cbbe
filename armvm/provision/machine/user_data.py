"""Reads the files of --user-data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from armvm.base.errors import ConfigError, NotFound, PermissionDenied
from armvm.guest.cloudinit.documents import together
from armvm.guest.cloudinit.user_data import MAX_BYTES, decode
from armvm.settings.names import shown


def read_files(paths: Sequence[Path]) -> str | None:
    """Return the merged contents of all the files; ``-`` is standard input.

    Raises NotFound, PermissionDenied, ConfigError.
    """
    return together([_read(path) for path in paths]) if paths else None


def _read(path: Path) -> str:
    try:
        if str(path) == "-":
            return decode(sys.stdin.buffer.read(MAX_BYTES))
        with path.open("rb") as file:
            return decode(file.read(MAX_BYTES))
    except FileNotFoundError as error:
        raise NotFound(
            f"file {shown(str(path))} not found for --user-data",
            hint="give the path of a cloud-config file; it begins with #cloud-config",
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot read {path}",
            hint="make it readable for this user, or use another file",
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"invalid user-data {shown(str(path))}: {error}",
            hint="cloud-init user-data is UTF-8 text that begins with #cloud-config",
        ) from error
