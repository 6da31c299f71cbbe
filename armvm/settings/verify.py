"""What must vouch for an image that is fetched: the key ``verify``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from armvm.base.errors import ConfigError
from armvm.settings.config_file import top_level
from armvm.settings.names import shown

VARIABLE = "ARMVM_VERIFY"
#: What an option's value is called in an error.
OPTION = "--verify"


class Verify(enum.Enum):
    """The weakest that is accepted; the value is how it is written.

    Where nothing is asked for, it is the strongest that the image's source offers.
    """

    SIGNATURE = "signature"  #: a signature by a pinned key, or what is as good
    DIGEST = "digest"  #: a digest that the source publishes, whoever may have written it there
    NONE = "none"  #: nothing


def policy(asked: str | None, environ: Mapping[str, str], files: Sequence[Path]) -> Verify | None:
    """Return the policy: from ``--verify``, else ``ARMVM_VERIFY``, else the first of *files*
    that has the key; None where nobody asks.

    Raises ConfigError for a value that is none, PermissionDenied for a file that cannot be read.
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
        f"{origin}: {shown(str(value))} is no value for verify", hint=f"verify is one of {known}"
    )
