"""Settings in layers: the first layer that has a key wins, and its origin is kept.

The order: flag, ``ARMVM_*``, the user's config.toml, /etc/armvm/config.toml, the
preset, the built-in value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from armvm.base.errors import ConfigError
from armvm.settings.machine import DEFAULT_IMAGE, Machine
from armvm.settings.names import shown
from armvm.settings.size import parse_disk, parse_memory


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and its origin (``flag``, ``ARMVM_CPUS``, a file's path, …)."""

    value: Any
    origin: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Settings from one place: key to value, not parsed yet.

    ``places`` locates a value more precisely: the name of a variable, or a file and line.
    """

    origin: str
    values: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)

    def place(self, key: str) -> str:
        """Return the origin of a key's value."""
        return self.places.get(key, self.origin)


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError("expected an integer")
    try:
        return int(str(value))
    except ValueError:
        raise ValueError("expected an integer") from None


def _memory(value: Any) -> int:
    return parse_memory(str(value))


def _disk(value: Any) -> int:
    return parse_disk(str(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise ValueError("expected true or false")


#: All keys of a machine's settings: how the value is parsed, and the default.
KEYS: Mapping[str, tuple[Callable[[Any], Any], Any]] = {
    "cpus": (_integer, 2),
    "mem": (_memory, 2048),
    "disk": (_disk, 10 << 30),
    "image": (_text, DEFAULT_IMAGE),
    "user": (_text, None),
    "network": (_text, None),
    "cpu": (_text, None),
    "headless": (_switch, False),
    "autologin": (_switch, True),
    "motd": (_switch, True),
    "fast": (_switch, False),
    "tuned": (_switch, False),
}


#: Fields of Machine whose name differs from the key.
FIELDS: Mapping[str, str] = {"mem": "memory_mib", "cpu": "cpu_model"}


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Return the layer of the ``ARMVM_*`` variables."""
    found = {key: environ[f"ARMVM_{key.upper()}"] for key in KEYS if environ.get(_variable(key))}
    return Layer(origin="environment", values=found, places={key: _variable(key) for key in found})


def resolve(layers: Sequence[Layer]) -> dict[str, Setting]:
    """Return a Setting for every key, from the first of *layers* that has it.

    Raises ConfigError for an unknown key or an invalid value, with its origin.
    """
    for layer in layers:
        for key in layer.values:
            if key not in KEYS:
                raise ConfigError(
                    f"{layer.origin}: unknown setting {shown(str(key))}",
                    hint="known: " + ", ".join(KEYS),
                )
    return {key: _first(key, layers) for key in KEYS}


def _first(key: str, layers: Sequence[Layer]) -> Setting:
    read, built_in = KEYS[key]
    for layer in layers:
        if layer.values.get(key) is None:
            continue
        origin = layer.place(key)
        try:
            value = read(layer.values[key])
            if key in layer.places:
                _check(key, value)
            return Setting(value=value, origin=origin)
        except ValueError as error:
            raise ConfigError(
                f"{origin}: invalid {key} {shown(str(layer.values[key]))}: {error}"
            ) from error
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error.message}", hint=error.hint) from error
    return Setting(value=built_in, origin="built-in")


def _check(key: str, value: Any) -> None:
    """Raise ConfigError for a value that no machine can have, while its origin is known."""
    Machine(name="any", **{FIELDS.get(key, key): value})


def _variable(key: str) -> str:
    return f"ARMVM_{key.upper()}"
