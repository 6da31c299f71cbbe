"""Reading the files that --user-data names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from armvm.base.errors import ConfigError, NotFound, PermissionDenied
from armvm.guest.cloudinit.documents import together
from armvm.guest.cloudinit.user_data import MAX_BYTES, decode
from armvm.settings.names import shown


def read_files(paths: Sequence[Path]) -> str | None:
    """Return what all the files say, together; ``-`` is standard input.

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
            f"there is no file {shown(str(path))} for --user-data",
            hint="name one that is there; it begins with #cloud-config",
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"{path} cannot be read", hint="let this user read it, or name another file"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{shown(str(path))} is no user-data: {error}",
            hint="cloud-init's user-data is UTF-8 text that begins with #cloud-config",
        ) from error
