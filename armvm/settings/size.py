"""Parse sizes: ``4096``, ``4G``, ``512MiB``."""

from __future__ import annotations

import re

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
#: Maximum size of a guest's disk: also of one in an image, whose tables armvm checks.
MAX_DISK = 8 * TIB

_UNITS = {"K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(?:([KMGT])(?:iB|B|i)?)?", re.IGNORECASE)


def parse_size(text: str, *, what: str, plain_unit: int) -> int:
    """Return a size in bytes.

    Units are binary, as in libvirt and QEMU: ``G``, ``Gi``, ``GB`` and ``GiB`` are 2**30 bytes. A
    number without a unit counts *plain_unit* bytes. Raises ConfigError, with *what* as the name
    of the value.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        plain = "20 (GiB), 20G, 512M" if plain_unit == GIB else "4096 (MiB), 4G, 512M"
        raise ConfigError(f"invalid size {shown(text)} for {what}", hint=f"examples: {plain}")
    number, unit = match.groups()
    return int(float(number) * (_UNITS[unit.upper()] if unit else plain_unit))


def parse_memory(text: str) -> int:
    """Return memory in MiB; a number without a unit is in MiB, as in virt-install."""
    return parse_size(text, what="--mem", plain_unit=MIB) // MIB


def parse_disk(text: str) -> int:
    """Return a disk size in bytes; a number without a unit is in GiB, as in virt-install."""
    return parse_size(text, what="--disk", plain_unit=GIB)


def size_label(count: int) -> str:
    """Return a size in the largest unit that divides it: ``10G``, ``1536M``."""
    for unit in ("T", "G", "M", "K"):
        if count and count % _UNITS[unit] == 0:
            return f"{count // _UNITS[unit]}{unit}"
    return str(count)
