"""Presets: TOML that becomes a layer of settings."""

from __future__ import annotations

from armvm.errors import NotFound
from armvm.paths import resources
from armvm.spec.configfile import read_toml
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
