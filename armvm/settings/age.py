"""Ages as people write them: ``12h``, ``30d``, ``2w``."""

from __future__ import annotations

import re

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_AGE = re.compile(r"(\d{1,9})\s*([smhdw])")


def parse_age(text: str, *, what: str) -> float:
    """Return the seconds that *text* stands for. Raises ConfigError, which names the value *what*.

    A number alone is refused: ``--older-than 30`` could be meant in days as well as in hours.
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigError(
            f"{shown(text)} is no age for {what}", hint="write it like 12h, 30d or 2w"
        )
    return int(match[1]) * _UNITS[match[2]]
