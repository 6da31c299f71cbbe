"""Queues by name, from the configuration: what ``armvm run --on`` takes beside hosts.

::

    [queues]
    farm = { slurm = "partition", options = ["--time=30"] }

    [queues.lab]
    slurm = "arm"
    armvm = "/opt/armvm/bin/armvm"   # default: armvm, found on the node's PATH
    shared = ["/home"]               # directories that the nodes have too
    cpus = 2                         # the size of a job with --from, whose golden is on the node
    mem = "1G"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armvm.base.errors import ArmvmError
from armvm.settings.config_file import ConfigFile, read_config
from armvm.settings.hosts import hosts_in, why_no_name
from armvm.settings.table import SETTINGS

_KEYS = ("slurm", "options", "armvm", "shared", "cpus", "mem")


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A Slurm partition with a name. ``place`` is the file that has it, printable."""

    name: str
    partition: str
    place: str
    options: tuple[str, ...] = ()
    armvm: str = "armvm"
    shared: tuple[Path, ...] = ()
    cpus: int | None = None
    memory_mib: int | None = None


def queues_in(files: Sequence[Path]) -> Mapping[str, Queue]:
    """Return the queues of *files* by name, in their order; the first file with a name wins.

    Raises ConfigError for an invalid table, or a name that a host has too, with its file, and
    PermissionDenied.
    """
    hosts_in(files)
    found: dict[str, Queue] = {}
    for path in files:
        file = read_config(path)
        if file is None:
            continue
        for name, table in file.document.get("queues", {}).items():
            if (why := why_no_name(name)) is not None:
                file.refuse(("queues",), name, why)
            found.setdefault(name, _queue(file, name, table))
    return found


def _queue(file: ConfigFile, name: str, table: Any) -> Queue:
    where = ("queues", name)
    if not isinstance(table, dict):
        file.refuse(where, None, 'expected a table, such as { slurm = "partition" }')
    for key in table:
        if key not in _KEYS:
            file.refuse(where, key, "unknown key", _KEYS)
    if "slurm" not in table:
        file.refuse(where, "slurm", "the name of a Slurm partition is required")
    options = _texts(file, where, "options", table)
    if options and not options[0].startswith("-"):
        file.refuse(where, "options", "the first one does not begin with '-'")
    if "--" in options:
        file.refuse(where, "options", "'--' would end the options")
    armvm = _text(file, where, "armvm", table.get("armvm", "armvm"))
    if armvm.startswith("-") or "=" in armvm:
        file.refuse(where, "armvm", "expected the name or the path of a program")
    shared = tuple(map(Path, _texts(file, where, "shared", table)))
    if not all(one.is_absolute() for one in shared):
        file.refuse(where, "shared", "expected absolute paths of directories")
    return Queue(
        name=name,
        partition=_text(file, where, "slurm", table["slurm"]),
        place=file.place,
        options=options,
        armvm=armvm,
        shared=shared,
        cpus=_size(file, where, "cpus", table),
        memory_mib=_size(file, where, "mem", table),
    )


def _text(file: ConfigFile, where: Sequence[str], key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        file.refuse(where, key, "expected a string")
    return value


def _texts(
    file: ConfigFile, where: Sequence[str], key: str, table: Mapping[str, Any]
) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list):
        file.refuse(where, key, "expected a list of strings")
    return tuple(_text(file, where, key, one) for one in value)


def _size(file: ConfigFile, where: Sequence[str], key: str, table: Mapping[str, Any]) -> int | None:
    if key not in table:
        return None
    try:
        value: int = SETTINGS[key].read(table[key])
    except (ValueError, ArmvmError) as error:
        file.refuse(where, key, str(error))
    if value < 1:
        file.refuse(where, key, "out of range (at least 1)")
    return value
