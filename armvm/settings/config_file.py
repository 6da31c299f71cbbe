"""Read a configuration file.

::

    warm = "auto"            # above the tables: TOP_LEVEL

    [machine]                # defaults for machines
    cpus = 4

    [hosts]                  # see armvm.settings.hosts
    lab1 = "qemu+ssh://root@lab1/system"

    [queues]                 # see armvm.settings.queues
    farm = { slurm = "partition" }

    [clouds]                 # see armvm.settings.clouds
    farm = { openstack = "mycloud", network = "net", flavor = "arm.small" }

    [mirrors]                # and [images.NAME]: see armvm.settings.catalogs
    debian = "https://mirror.example.org/debian-cloud/"
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from armvm.base.errors import ConfigError, PermissionDenied
from armvm.base.limits import MAX_BITS, MAX_DEPTH
from armvm.settings.layers import Layer
from armvm.settings.names import shown
from armvm.settings.table import SETTINGS

#: Keys above the tables of a configuration file: they are not settings of a machine.
TOP_LEVEL = ("warm", "verify", "keyserver")

#: The tables of a configuration file.
TABLES = ("machine", "hosts", "queues", "clouds", "mirrors", "images")


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """A configuration file that exists and is valid TOML."""

    path: Path
    document: Mapping[str, Any]

    @property
    def place(self) -> str:
        """The file's path, printable: what errors and `armvm config show` call it."""
        return str(self.path) if str(self.path).isprintable() else ascii(str(self.path))

    def has(self, *keys: str) -> bool:
        """Return whether a key exists; the tables around it come first."""
        value: Any = self.document
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return True

    def refuse(
        self, table: Sequence[str], key: str | None, why: str, known: Collection[str] = ()
    ) -> NoReturn:
        """Raise ConfigError for a table (``()``: above all tables) or a key in it.

        If *known* is given, the hint contains the nearest known name and all others.
        """
        path = [*table, *([key] if key is not None else [])]
        what = f"[{'.'.join(table)}]" if table else ""
        what = " ".join(word for word in (what, key) if word)
        what = what if what.isprintable() and len(what) <= 120 else shown(what, 120)
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{self.place}: {what}: {why}",
            hint=f"{hint}known: {', '.join(known)}" if known else None,
        )


def read_config(path: Path) -> ConfigFile | None:
    """Return a configuration file, or None if it does not exist.

    Raises ConfigError if it is not valid TOML or has an unknown key or table at the top level,
    and PermissionDenied if it cannot be read.
    """
    try:
        document = read_toml(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot read {path}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    file = ConfigFile(path=path, document=document)
    for key, value in document.items():
        if key in TABLES:
            if not isinstance(value, dict):
                file.refuse((key,), None, "expected a table")
        elif key in SETTINGS:
            file.refuse((), key, "belongs below [machine]: it is a machine setting")
        elif key not in TOP_LEVEL:
            file.refuse((), key, "unknown entry", [*TOP_LEVEL, *(f"[{one}]" for one in TABLES)])
    return file


def file_layer(path: Path) -> Layer:
    """Return the machine settings of a configuration file; empty if the file does not exist.

    Raises what read_config() raises, and ConfigError for an unknown setting.
    """
    file = read_config(path)
    if file is None:
        return Layer(origin=str(path), values={})
    values = file.document.get("machine", {})
    for key in values:
        if key in TOP_LEVEL:
            file.refuse(("machine",), key, "belongs above [machine]: it is not a machine setting")
        if key not in SETTINGS:
            file.refuse(("machine",), key, "unknown setting", SETTINGS)
    return Layer(origin=file.place, values=values, check=True)


def top_level(key: str, files: Sequence[Path]) -> tuple[Any, str] | None:
    """Return the value of a top-level key and its file, from the first of *files* that has it.

    Returns None if no file has it. Raises what read_config() raises.
    """
    for path in files:
        file = read_config(path)
        if file is not None and key in file.document:
            return file.document[key], file.place
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's document. Raises ConfigError with file and line if it is invalid."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib

        document: dict[str, Any] = tomllib.loads(text)
        _check(document)
        return document
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, TOMLDecodeError
        raise ConfigError(f"{path}: invalid TOML: {error}") from error


def _check(value: Any, depth: int = 0) -> None:
    """Raise ValueError for what Python cannot write again: deep nesting, huge integers."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError("integer out of range")
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _check(one, depth + 1)
