"""Read the values of ``--add-disk``: a new disk of a size, or an existing file.

A value is SIZE, FILE, or KEY=VALUE pairs: ``20G``, ``/srv/data.qcow2``,
``size=20G,name=data,format=raw``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from armvm.base.errors import ConfigError, Conflict
from armvm.settings.names import next_name, shown
from armvm.settings.size import MAX_DISK, MIB, parse_size, size_label

FORMATS = ("qcow2", "raw")
MIN_SIZE = 1 * MIB
#: More disks than letters in libvirt's names (vdc to vdz) are impossible.
MAX_DISKS = 24
HINT = "examples: 20G, /srv/data.qcow2, size=20G,name=data,format=raw"

_KEYS = ("size", "file", "name", "format")
_PAIRS = re.compile(rf"(?:{'|'.join(_KEYS)})=")
_SIZE = re.compile(r"[0-9.]+\s*[a-zA-Z]*")
#: virtio-blk passes at most 20 bytes to the guest as the serial number.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,19}")
#: Names of the machine's other disks, and libvirt's names of devices.
_TAKEN = re.compile(r"root|seed|cdrom|[hsv]d[a-z]+")


@dataclass(frozen=True, kw_only=True)
class ExtraDisk:
    """A disk beside the root disk: a new one of *size* bytes, or the existing *file*.

    An empty *name* means that armvm chooses one; *format* None means qcow2 for a new disk, and
    the detected format for a file.
    """

    name: str = ""
    size: int | None = None
    file: str | None = None
    format: str | None = None


def read_disk(text: str) -> ExtraDisk:
    """Return the disk that *text* describes. Raises ConfigError."""
    values = _pairs(text) if _PAIRS.match(text) else {_kind(text): text}
    if ("size" in values) == ("file" in values):
        raise ConfigError(f"invalid disk {shown(text)}: give either size or file", hint=HINT)
    kind = values.get("format")
    if kind is not None and kind not in FORMATS:
        raise ConfigError(f"invalid disk format {shown(kind)}", hint="use qcow2 or raw")
    name = values.get("name", "")
    return ExtraDisk(
        name=check_disk_name(name) if "name" in values else "",
        size=disk_size(values["size"]) if "size" in values else None,
        file=values.get("file"),
        format=kind,
    )


def disk_size(text: str) -> int:
    """Return a disk's size in bytes; a number without a unit is in GiB. Raises ConfigError."""
    size = parse_size(text, what="a disk", plain_unit=1 << 30)
    if not MIN_SIZE <= size <= MAX_DISK:
        raise ConfigError(
            f"a disk of {size_label(size)} is out of range "
            f"({size_label(MIN_SIZE)} to {size_label(MAX_DISK)})",
            hint=HINT,
        )
    return size // 512 * 512


def check_disk_name(name: str) -> str:
    """Return *name* if a disk can have it, else raise ConfigError."""
    if _TAKEN.fullmatch(name):
        raise ConfigError(f"{shown(name)} cannot be used as the name of a disk", hint="try: data")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"invalid disk name {shown(name)}",
            hint="use 1 to 20 of letters, digits, '_' and '-', a letter or digit first",
        )
    return name


def named(disks: Sequence[ExtraDisk], taken: Collection[str] = ()) -> tuple[ExtraDisk, ...]:
    """Return the disks, each with a name: disk-01, disk-02, … if none was given.

    Raises Conflict for a name in *taken*, ConfigError if two have the same name, or if there are
    too many.
    """
    used = set(taken)
    given = {one.name for one in disks if one.name}
    found = []
    for one in disks:
        name = one.name or next_name(used | given, "disk")
        if name in taken:
            raise Conflict(f"disk {name} already exists", hint="choose another name: name=…")
        if name in used:
            raise ConfigError(f"two disks have the name {name}", hint="choose another name: name=…")
        used.add(name)
        found.append(replace(one, name=name))
    if len(found) > MAX_DISKS:
        raise ConfigError(f"{len(found)} disks is out of range (0 to {MAX_DISKS})")
    return tuple(found)


def _kind(text: str) -> str:
    return "size" if _SIZE.fullmatch(text.strip()) else "file"


def _pairs(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if key in values:
            raise ConfigError(f"invalid disk {shown(text)}: {key} is given twice", hint=HINT)
        if key not in _KEYS or not equals or not value:
            raise ConfigError(
                f"invalid disk {shown(text)}: {shown(pair)} is not one of "
                + ", ".join(f"{one}=…" for one in _KEYS),
                hint=HINT,
            )
        values[key] = value
    return values
