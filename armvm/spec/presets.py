"""Presets and configuration files: TOML that becomes a layer of settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from armvm.errors import ConfigError, NotFound, PermissionDenied
from armvm.paths import resources
from armvm.spec.layers import Layer
from armvm.spec.names import shown

#: Keys of a configuration file that stand above ``[machine]``: they are no machine's settings.
TOP_LEVEL = ("warm", "verify", "keyserver")

#: Its other tables: see armvm.spec.catalogs.
TABLES = ("images", "mirrors")


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in (resources("templates") / "presets").glob("*.toml"))


def chain(name: str) -> tuple[str, ...]:
    """Return a preset's name behind those it is based on (``base = "…"``), the first one first.

    Raises NotFound for a name that is none, ConfigError for presets that are based on each other.
    """
    found: list[str] = []
    while True:
        if name not in preset_names():
            raise NotFound(
                f"there is no preset {shown(name)}", hint="presets: " + ", ".join(preset_names())
            )
        if name in found:
            raise ConfigError(f"the presets {', '.join(found)} are based on each other")
        found.append(name)
        base = _preset(name).get("base")
        if base is None:
            return tuple(reversed(found))
        name = str(base)


def preset_layer(name: str) -> Layer:
    """Return the settings of a preset, with those it is based on. Raises as `chain` does."""
    values: dict[str, Any] = {}
    for one in chain(name):
        values |= _preset(one)
    for key in ("base", "description"):
        values.pop(key, None)
    return Layer(origin=f"preset {name}", values=values)


def _preset(name: str) -> dict[str, Any]:
    return read_toml(resources("templates") / "presets" / f"{name}.toml")


def file_layer(path: Path) -> Layer:
    """Return the settings of a configuration file: none where the file does not exist.

    Machine settings stand in its table ``[machine]``. Raises ConfigError when it is no TOML or
    has something else in it, PermissionDenied when it cannot be read.
    """
    document = _document(path) or {}
    for key in (*TOP_LEVEL, *TABLES):
        document.pop(key, None)
    values = document.pop("machine", {})
    if isinstance(values, dict):
        for key in TOP_LEVEL:
            if key in values:
                raise ConfigError(
                    f"{path}: {key} stands above [machine], since it is no machine's setting"
                )
    if document or not isinstance(values, dict):
        raise ConfigError(
            f"{path}: unknown entry {shown(str(next(iter(document), 'machine')))}",
            hint="machine settings stand in the table [machine]",
        )
    return Layer(origin=str(path), values=values)


def top_level(key: str, files: Sequence[Path]) -> tuple[Any, str] | None:
    """Return the value of a key above ``[machine]``, and which of *files* has it: the first.

    None where none has it. Raises what file_layer() raises for a file that cannot be read.
    """
    for path in files:
        document = _document(path)
        if document is not None and key in document:
            return document[key], str(path)
    return None


def _document(path: Path) -> dict[str, Any] | None:
    """Return a configuration file's document; None where there is no such file."""
    try:
        return read_toml(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's document. Raises ConfigError with file and line when it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    return document
