"""When armvm uses goldens: the key ``warm``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

VARIABLE = "ARMVM_WARM"


class Policy(enum.Enum):
    """When goldens are used and created by default; the value is its name in the configuration."""

    AUTO = "auto"  #: use a matching golden; create one after a cold create
    USE = "use"  #: use a matching golden; never create one
    NEVER = "never"  #: use a golden only with --from


def policy(environ: Mapping[str, str], files: Sequence[Path]) -> Policy:
    """Return the policy: from ``ARMVM_WARM``, else from the first of *files* that has the key.

    Raises ConfigError for an invalid value, PermissionDenied for a file that cannot be read.
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
        f"{origin}: invalid warm value {shown(str(value))}", hint=f"expected one of: {known}"
    )
