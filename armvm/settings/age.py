"""Parse ages: ``12h``, ``30d``, ``2w``."""

from __future__ import annotations

import re

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_AGE = re.compile(r"(\d{1,9})\s*([smhdw])")


def parse_age(text: str, *, what: str) -> float:
    """Return an age in seconds. Raises ConfigError, with *what* as the name of the value.

    The unit is required: ``--older-than 30`` could mean days or hours.
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigError(f"invalid age {shown(text)} for {what}", hint="examples: 12h, 30d, 2w")
    return int(match[1]) * _UNITS[match[2]]
