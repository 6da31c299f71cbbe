"""Clouds by name, from the configuration: what ``--on`` takes besides hosts.

::

    [clouds]
    farm = { openstack = "mycloud", network = "net", flavor = "arm.small" }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.settings.names import shown

_KEYS = ("openstack", "network", "flavor")


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """An OpenStack cloud with a name. ``place`` is the file that has it, printable.

    ``openstack`` is its name in clouds.yaml; ``network`` and ``flavor`` are those of new servers.
    """

    name: str
    openstack: str
    network: str
    flavor: str
    place: str


def clouds_in(files: Sequence[Path]) -> Mapping[str, Cloud]:
    """Return the clouds of *files* by name, in their order; the first file with a name wins.

    Raises ConfigError for an invalid name or value, or a name that a host or a queue has too, and
    PermissionDenied.
    """
    from armvm.settings.config_file import read_config
    from armvm.settings.hosts import hosts_in, why_no_name

    found: dict[str, Cloud] = {}
    hosts_in(files)
    for path in files:
        file = read_config(path)
        if file is None:
            continue
        for name, values in file.document.get("clouds", {}).items():
            if (why := why_no_name(name)) is not None:
                file.refuse(("clouds",), name, why)
            if not isinstance(values, dict):
                file.refuse(("clouds",), name, f"expected a table with {', '.join(_KEYS)}")
            for key in values:
                if key not in _KEYS:
                    file.refuse(("clouds", name), key, "unknown key", _KEYS)
            for key in _KEYS:
                if (why := _why_invalid(values.get(key))) is not None:
                    file.refuse(("clouds", name), key, why)
            found.setdefault(name, Cloud(name=name, place=file.place, **values))
    return found


def find_cloud(name: str, files: Sequence[Path]) -> Cloud | None:
    """Return the cloud *name* of *files*; None if no cloud has that name."""
    return clouds_in(files).get(name)


def _why_invalid(value: object) -> str | None:
    if value is None:
        return "required"
    if not isinstance(value, str):
        return "expected a string"
    if not value or len(value) > 255 or not value.isprintable():
        return f"invalid name {shown(value)}"
    return None
