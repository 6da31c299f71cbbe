"""Presets and configuration files: TOML that becomes a layer of settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from armvm.errors import ConfigError, NotFound, PermissionDenied
from armvm.paths import resources
from armvm.spec.layers import Layer
from armvm.spec.names import shown


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in (resources("templates") / "presets").glob("*.toml"))


def preset_layer(name: str) -> Layer:
    """Return the settings of a preset. Raises NotFound for a name that is none."""
    if name not in preset_names():
        raise NotFound(
            f"there is no preset {shown(name)}", hint="presets: " + ", ".join(preset_names())
        )
    values = read_toml(resources("templates") / "presets" / f"{name}.toml")
    values.pop("description", None)
    return Layer(origin=f"preset {name}", values=values)


def file_layer(path: Path) -> Layer:
    """Return the settings of a configuration file: none where the file does not exist.

    Machine settings stand in its table ``[machine]``. Raises ConfigError when it is no TOML or
    has something else in it, PermissionDenied when it cannot be read.
    """
    try:
        document = read_toml(path)
    except (FileNotFoundError, NotADirectoryError):
        return Layer(origin=str(path), values={})
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    document.pop("warm", None)  # see armvm.spec.warm
    for table in ("images", "mirrors"):  # see armvm.spec.catalogs
        document.pop(table, None)
    values = document.pop("machine", {})
    if isinstance(values, dict) and "warm" in values:
        raise ConfigError(f"{path}: warm stands above [machine], since it is no machine's setting")
    if document or not isinstance(values, dict):
        raise ConfigError(
            f"{path}: unknown entry {shown(str(next(iter(document), 'machine')))}",
            hint="machine settings stand in the table [machine]",
        )
    return Layer(origin=str(path), values=values)


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
