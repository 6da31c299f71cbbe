"""Read a configuration file, with the line number of each key.

::

    warm = "auto"            # above the tables: TOP_LEVEL

    [machine]                # defaults for machines
    cpus = 4

    [mirrors]                # and [images.NAME]: see armvm.settings.catalogs
    debian = "https://mirror.example.org/debian-cloud/"
"""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from armvm.base.errors import ConfigError, PermissionDenied
from armvm.settings.layers import KEYS, Layer
from armvm.settings.names import shown

#: Keys above the tables of a configuration file: they are not settings of a machine.
TOP_LEVEL = ("warm", "verify", "keyserver")

#: The tables of a configuration file.
TABLES = ("machine", "mirrors", "images")


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """A configuration file that exists and is valid TOML: its text and its document."""

    path: Path
    text: str
    document: Mapping[str, Any]

    def has(self, *keys: str) -> bool:
        """Return whether the key exists."""
        return keys in self._lines

    def line(self, *keys: str) -> int | None:
        """Return the line number of a key, or of the table around it."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys)

    def place(self, *keys: str) -> str:
        """Return the position of a key as compilers write it: ``FILE:LINE``."""
        line = self.line(*keys)
        place = f"{self.path}:{line}" if line else str(self.path)
        return place if place.isprintable() else ascii(place)

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
            f"{self.place(*path)}: {what}: {why}",
            hint=f"{hint}known: {', '.join(known)}" if known else None,
        )

    @functools.cached_property
    def _lines(self) -> Mapping[tuple[str, ...], int]:
        return lines_of(self.text)


def read_config(path: Path) -> ConfigFile | None:
    """Return a configuration file, or None if it does not exist.

    Raises ConfigError if it is not valid TOML or has an unknown key or table at the top level,
    and PermissionDenied if it cannot be read.
    """
    try:
        text, document = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot read {path}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    file = ConfigFile(path=path, text=text, document=document)
    for key, value in document.items():
        if key in TABLES:
            if not isinstance(value, dict):
                file.refuse((key,), None, "expected a table")
        elif key in KEYS:
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
        if key not in KEYS:
            file.refuse(("machine",), key, "unknown setting", KEYS)
    places = {key: file.place("machine", key) for key in values}
    return Layer(origin=str(path), values=values, places=places)


def top_level(key: str, files: Sequence[Path]) -> tuple[Any, str] | None:
    """Return the value and position of a top-level key, from the first of *files* that has it.

    Returns None if no file has it. Raises what read_config() raises.
    """
    for path in files:
        file = read_config(path)
        if file is not None and key in file.document:
            return file.document[key], file.place(key)
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's document. Raises ConfigError with file and line if it is invalid."""
    return _read(path)[1]


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return text, _parse(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, TOMLDecodeError
        raise ConfigError(f"{path}: invalid TOML: {error}") from error


def _parse(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    document: dict[str, Any] = tomllib.loads(text)
    return document


def lines_of(text: str) -> Mapping[tuple[str, ...], int]:
    """Return the first line number of each key and table of a TOML document.

    The parser keeps no positions, so it gets the document piece by piece, each below the header
    of its table. A piece ends with the first line that completes it.
    """
    found: dict[tuple[str, ...], int] = {}
    header, piece, begin = "", "", 1
    for number, line in enumerate(text.split("\n"), 1):
        piece += line + "\n"
        try:
            part = _parse(header + piece)
        except (ValueError, RecursionError):
            continue  # the value continues on the next line
        for path in _paths(part):
            found.setdefault(path, begin)
        if piece.lstrip().startswith("["):
            header = piece
        piece, begin = "", number + 1
    return found


def _paths(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*above, key)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from _paths(one, (*above, key))
