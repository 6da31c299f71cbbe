"""The minimum verification for downloaded images: the key ``verify``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from armvm.base.errors import ConfigError
from armvm.settings.config_file import top_level
from armvm.settings.names import shown

VARIABLE = "ARMVM_VERIFY"
#: The option's name in errors.
OPTION = "--verify"


class Verify(enum.Enum):
    """The minimum verification; the value is its name in the configuration.

    The default is the strongest that the image's source offers.
    """

    SIGNATURE = "signature"  #: a signature by a pinned key, or an equivalent
    DIGEST = "digest"  #: a digest that the source publishes, without a signature
    NONE = "none"  #: no verification


def policy(asked: str | None, environ: Mapping[str, str], files: Sequence[Path]) -> Verify | None:
    """Return the policy: from ``--verify``, else ``ARMVM_VERIFY``, else the first of *files*
    that has the key, else None.

    Raises ConfigError for an invalid value, PermissionDenied for a file that cannot be read.
    """
    if asked is not None:
        return _read(asked, OPTION)
    if environ.get(VARIABLE):
        return _read(environ[VARIABLE], VARIABLE)
    found = top_level("verify", files)
    return _read(*found) if found else None


def _read(value: Any, origin: str) -> Verify:
    for one in Verify:
        if value == one.value:
            return one
    known = ", ".join(one.value for one in Verify)
    raise ConfigError(
        f"{origin}: invalid verify value {shown(str(value))}", hint=f"expected one of: {known}"
    )
