"""What the configuration says about goldens: the key ``warm``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

VARIABLE = "ARMVM_WARM"


class Policy(enum.Enum):
    """When goldens are made and used without being asked for; the value is how it is written."""

    AUTO = "auto"  #: a golden that fits is used, and one is made after a cold create
    USE = "use"  #: a golden that fits is used, none is made
    NEVER = "never"  #: a golden is used only where --from asks for it


def policy(environ: Mapping[str, str], files: Sequence[Path]) -> Policy:
    """Return the policy: from ``ARMVM_WARM``, else from the first of *files* that has the key.

    Raises ConfigError for a value that is none, PermissionDenied for a file that cannot be read.
    """
    from armvm.settings.config_file import top_level

    if environ.get(VARIABLE):
        return _read(environ[VARIABLE], VARIABLE)
    found = top_level("warm", files)
    return _read(*found) if found else Policy.USE


def _read(value: Any, origin: str) -> Policy:
    for one in Policy:
        if value == one.value:
            return one
    known = ", ".join(one.value for one in Policy)
    raise ConfigError(
        f"{origin}: {shown(str(value))} is no value for warm", hint=f"warm is one of {known}"
    )
