"""A configuration file, read in one place.

::

    warm = "auto"            # above the tables: TOP_LEVEL

    [machine]                # what a machine is like unless something else is asked for
    cpus = 4

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
from armvm.settings.layers import Layer
from armvm.settings.names import shown
from armvm.settings.table import SETTINGS

#: Keys of a configuration file that stand above its tables: they are no machine's settings.
TOP_LEVEL = ("warm", "verify", "keyserver")

#: Its tables.
TABLES = ("machine", "mirrors", "images")


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """One file that exists and is TOML."""

    path: Path
    document: Mapping[str, Any]

    @property
    def place(self) -> str:
        """The file's path, printable: what errors and `armvm config show` call it."""
        return str(self.path) if str(self.path).isprintable() else ascii(str(self.path))

    def has(self, *keys: str) -> bool:
        """Tell whether there is such a key, given with the tables around it."""
        value: Any = self.document
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return True

    def refuse(
        self, table: Sequence[str], key: str | None, why: str, known: Collection[str] = ()
    ) -> NoReturn:
        """Raise the ConfigError for a table (``()``: above all tables) or a key in it.

        Where it is a name that is not *known*, the hint has the nearest one and all others.
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
    """Return a configuration file; None where there is none.

    Raises ConfigError when it is no TOML, or has a key or table at its top that is not known,
    and PermissionDenied when it cannot be read.
    """
    try:
        document = read_toml(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    file = ConfigFile(path=path, document=document)
    for key, value in document.items():
        if key in TABLES:
            if not isinstance(value, dict):
                file.refuse((key,), None, "a table is wanted")
        elif key in SETTINGS:
            file.refuse((), key, "stands in the table [machine]: it is a machine's setting")
        elif key not in TOP_LEVEL:
            file.refuse((), key, "unknown entry", [*TOP_LEVEL, *(f"[{one}]" for one in TABLES)])
    return file


def file_layer(path: Path) -> Layer:
    """Return the machine settings of a configuration file: none where the file does not exist.

    Raises what read_config() raises, and ConfigError for a setting that is not known.
    """
    file = read_config(path)
    if file is None:
        return Layer(origin=str(path), values={})
    values = file.document.get("machine", {})
    for key in values:
        if key in TOP_LEVEL:
            file.refuse(("machine",), key, "stands above [machine]: it is no machine's setting")
        if key not in SETTINGS:
            file.refuse(("machine",), key, "unknown setting", SETTINGS)
    return Layer(origin=file.place, values=values, check=True)


def top_level(key: str, files: Sequence[Path]) -> tuple[Any, str] | None:
    """Return the value of a key above the tables, and the file it is from: the first of *files*.

    None where none has it. Raises what read_config() raises.
    """
    for path in files:
        file = read_config(path)
        if file is not None and key in file.document:
            return file.document[key], file.place
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's document. Raises ConfigError with file and line when it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return document
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, TOMLDecodeError
        raise ConfigError(f"{path}: not TOML: {error}") from error
