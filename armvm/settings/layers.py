"""Settings from several places: the first layer that has a key decides, and its origin is known.

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
    """A value, and where it came from (``flag``, ``ARMVM_CPUS``, a file's path, …)."""

    value: Any
    origin: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One place's settings: a key to a value, still as it was written.

    ``places`` tells more closely where a value stands: a variable's name. With ``check``, values
    that no machine can have are refused while it is known where they stand.
    """

    origin: str
    values: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    check: bool = False

    def place(self, key: str) -> str:
        """Return where a key's value comes from."""
        return self.places.get(key, self.origin)


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError("a number is wanted")
    try:
        return int(str(value))
    except ValueError:
        raise ValueError("a whole number is wanted") from None


def _memory(value: Any) -> int:
    return parse_memory(str(value))


def _disk(value: Any) -> int:
    return parse_disk(str(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is wanted")
    return value


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise ValueError("true or false is wanted")


#: Every key that a machine's settings know: how its value is read, and the built-in value.
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


#: What a setting is called in a Machine, where that is something else.
FIELDS: Mapping[str, str] = {"mem": "memory_mib", "cpu": "cpu_model"}


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Return the layer that the ``ARMVM_*`` variables make."""
    found = {key: environ[f"ARMVM_{key.upper()}"] for key in KEYS if environ.get(_variable(key))}
    places = {key: _variable(key) for key in found}
    return Layer(origin="environment", values=found, places=places, check=True)


def resolve(layers: Sequence[Layer]) -> dict[str, Setting]:
    """Return a Setting for every key, from the first of *layers* that has it.

    Raises ConfigError for an unknown key or a value that cannot be read, naming where it stands.
    """
    for layer in layers:
        for key in layer.values:
            if key not in KEYS:
                raise ConfigError(
                    f"{layer.origin}: unknown setting {shown(str(key))}",
                    hint="the settings are " + ", ".join(KEYS),
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
            if layer.check:
                _check(key, value)
            return Setting(value=value, origin=origin)
        except ValueError as error:
            raise ConfigError(
                f"{origin}: {shown(str(layer.values[key]))} is no value for {key}: {error}"
            ) from error
        except ConfigError as error:
            where = origin if key in layer.places else f"{origin}: {key}"
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error
    return Setting(value=built_in, origin="built-in")


def _check(key: str, value: Any) -> None:
    """Raise ConfigError for what no machine can have, while it is known where it comes from."""
    Machine(name="any", **{FIELDS.get(key, key): value})


def _variable(key: str) -> str:
    return f"ARMVM_{key.upper()}"
