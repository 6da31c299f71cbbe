"""Reads the files of --user-data and --network-config."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from armvm.base.errors import ConfigError, NotFound, PermissionDenied
from armvm.guest.cloudinit import network_config
from armvm.settings.names import shown


def read_files(paths: Sequence[Path]) -> str | None:
    """Return the merged contents of all the files; ``-`` is standard input.

    Raises NotFound, PermissionDenied, ConfigError.
    """
    if not paths:
        return None
    # A machine without files needs none of this, nor Python's email package.
    from armvm.guest.cloudinit.documents import together
    from armvm.guest.cloudinit.user_data import MAX_BYTES, decode

    def read(path: Path) -> str:
        return _read(
            path,
            "--user-data",
            MAX_BYTES,
            decode,
            "cloud-init user-data is UTF-8 text that begins with #cloud-config",
        )

    return together([read(path) for path in paths])


def read_network_config(path: Path) -> str:
    """Return the text of a network configuration; ``-`` is standard input.

    Raises NotFound, PermissionDenied, ConfigError.
    """
    return _read(
        path,
        network_config.OPTION,
        network_config.MAX_BYTES + 1,
        bytes.decode,
        "a network configuration is YAML: UTF-8 text with version: 2",
    )


def _read(path: Path, option: str, most: int, decode: Callable[[bytes], str], form: str) -> str:
    """Return the text of a file of at most *most* bytes; *form* describes a valid one."""
    try:
        if str(path) == "-":
            return decode(sys.stdin.buffer.read(most))
        with path.open("rb") as file:
            return decode(file.read(most))
    except FileNotFoundError as error:
        raise NotFound(
            f"file {shown(str(path))} not found for {option}",
            hint=f"give the path of a file: {form}",
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot read {path}",
            hint="make it readable for this user, or use another file",
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"invalid {option.removeprefix('--')} {shown(str(path))}: {error}", hint=form
        ) from error
