"""Presets: layers of settings from TOML files."""

from __future__ import annotations

import functools
from typing import Any

from armvm.base.errors import ConfigError, NotFound
from armvm.base.paths import resources
from armvm.settings.config_file import read_toml
from armvm.settings.layers import Layer
from armvm.settings.names import shown


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in (resources("templates") / "presets").glob("*.toml"))


def chain(name: str) -> tuple[str, ...]:
    """Return a preset's name after those it is based on (``base = "…"``), the root first.

    Raises NotFound for an unknown name, ConfigError for presets that are based on each other.
    """
    found: list[str] = []
    while True:
        if name not in preset_names():
            raise NotFound(
                f"preset {shown(name)} not found", hint="known: " + ", ".join(preset_names())
            )
        if name in found:
            raise ConfigError(f"presets {', '.join(found)} are based on each other")
        found.append(name)
        base = _preset(name).get("base")
        if base is None:
            return tuple(reversed(found))
        name = str(base)


def preset_layer(name: str) -> Layer:
    """Return the settings of a preset and its bases. Raises as `chain` does."""
    values: dict[str, Any] = {}
    for one in chain(name):
        values |= _preset(one)
    for key in ("base", "description"):
        values.pop(key, None)
    return Layer(origin=f"preset {name}", values=values)


@functools.cache
def _preset(name: str) -> dict[str, Any]:
    return read_toml(resources("templates") / "presets" / f"{name}.toml")
