"""Settings in layers: the first layer that has a key wins, and its origin is kept.

The order: flag, ``ARMVM_*``, the user's config.toml, /etc/armvm/config.toml, the
preset, the built-in value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from armvm.base.errors import ConfigError
from armvm.settings.machine import Machine
from armvm.settings.names import shown
from armvm.settings.table import SETTINGS


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A setting's value and its origin (``flag``, ``ARMVM_CPUS``, a file's path, …)."""

    value: Any
    origin: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Settings from one place: key to value, not parsed yet.

    ``places`` has the names of the variables that set a value. With ``check``, values that no
    machine can have are refused while their origin is known.
    """

    origin: str
    values: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    check: bool = False

    def place(self, key: str) -> str:
        """Return the origin of a key's value."""
        return self.places.get(key, self.origin)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Return the layer of the ``ARMVM_*`` variables."""
    places = {key: one.variable for key, one in SETTINGS.items() if environ.get(one.variable)}
    found = {key: environ[variable] for key, variable in places.items()}
    return Layer(origin="environment", values=found, places=places, check=True)


def resolve(layers: Sequence[Layer]) -> dict[str, Resolved]:
    """Return a Resolved for every key, from the first of *layers* that has it.

    Raises ConfigError for an unknown key or an invalid value, with its origin.
    """
    for layer in layers:
        for key in layer.values:
            if key not in SETTINGS:
                raise ConfigError(
                    f"{layer.origin}: unknown setting {shown(str(key))}",
                    hint="known: " + ", ".join(SETTINGS),
                )
    return {key: _first(key, layers) for key in SETTINGS}


def _first(key: str, layers: Sequence[Layer]) -> Resolved:
    setting = SETTINGS[key]
    for layer in layers:
        if layer.values.get(key) is None:
            continue
        origin = layer.place(key)
        try:
            value = setting.read(layer.values[key])
            if layer.check:
                _check(key, value)
            return Resolved(value=value, origin=origin)
        except ValueError as error:
            raise ConfigError(
                f"{origin}: invalid {key} {shown(str(layer.values[key]))}: {error}"
            ) from error
        except ConfigError as error:
            where = origin if key in layer.places else f"{origin}: {key}"
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error
    return Resolved(value=setting.default, origin="built-in")


def _check(key: str, value: Any) -> None:
    """Raise ConfigError for a value that no machine can have, while its origin is known."""
    Machine(name="any", **{SETTINGS[key].field: value})
