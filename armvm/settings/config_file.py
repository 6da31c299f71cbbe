"""A configuration file, read in one place, with the line where each of its keys stands.

::

    warm = "auto"            # above the tables: TOP_LEVEL

    [machine]                # what a machine is like unless something else is asked for
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

#: Keys of a configuration file that stand above its tables: they are no machine's settings.
TOP_LEVEL = ("warm", "verify", "keyserver")

#: Its tables.
TABLES = ("machine", "mirrors", "images")


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """One file that exists and is TOML: its text, and what it says."""

    path: Path
    text: str
    document: Mapping[str, Any]

    def has(self, *keys: str) -> bool:
        """Tell whether there is such a key."""
        return keys in self._lines

    def line(self, *keys: str) -> int | None:
        """Return the number of the line where a key (or else the table around it) begins."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys)

    def place(self, *keys: str) -> str:
        """Return where a key stands, as compilers write it: ``FILE:LINE``."""
        line = self.line(*keys)
        place = f"{self.path}:{line}" if line else str(self.path)
        return place if place.isprintable() else ascii(place)

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
            f"{self.place(*path)}: {what}: {why}",
            hint=f"{hint}known: {', '.join(known)}" if known else None,
        )

    @functools.cached_property
    def _lines(self) -> Mapping[tuple[str, ...], int]:
        return lines_of(self.text)


def read_config(path: Path) -> ConfigFile | None:
    """Return a configuration file; None where there is none.

    Raises ConfigError when it is no TOML, or has a key or table at its top that is not known,
    and PermissionDenied when it cannot be read.
    """
    try:
        text, document = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    file = ConfigFile(path=path, text=text, document=document)
    for key, value in document.items():
        if key in TABLES:
            if not isinstance(value, dict):
                file.refuse((key,), None, "a table is wanted")
        elif key in KEYS:
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
        if key not in KEYS:
            file.refuse(("machine",), key, "unknown setting", KEYS)
    places = {key: file.place("machine", key) for key in values}
    return Layer(origin=str(path), values=values, places=places)


def top_level(key: str, files: Sequence[Path]) -> tuple[Any, str] | None:
    """Return the value of a key above the tables, and where it stands: the first of *files*.

    None where none has it. Raises what read_config() raises.
    """
    for path in files:
        file = read_config(path)
        if file is not None and key in file.document:
            return file.document[key], file.place(key)
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's document. Raises ConfigError with file and line when it is none."""
    return _read(path)[1]


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return text, _parse(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, TOMLDecodeError
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _parse(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    document: dict[str, Any] = tomllib.loads(text)
    return document


def lines_of(text: str) -> Mapping[tuple[str, ...], int]:
    """Return the line where each key and table of a TOML document begins.

    The parser keeps no positions, so it is given the document piece by piece, each below the
    header of its table: a piece ends with the first line that completes it.
    """
    found: dict[tuple[str, ...], int] = {}
    header, piece, begin = "", "", 1
    for number, line in enumerate(text.split("\n"), 1):
        piece += line + "\n"
        try:
            part = _parse(header + piece)
        except (ValueError, RecursionError):
            continue  # the value goes on in the next line
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
