"""Check a configuration for Ignition, which sets up Fedora CoreOS and Flatcar at the first boot.

Source: Ignition's configuration specifications: a JSON object with ``ignition.version``.
"""

from __future__ import annotations

import json
import re

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

#: Ignition configurations fetch larger files by URL.
MAX_BYTES = 1 << 20

_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(-[a-z0-9.]{1,20})?")
_HINT = "write it with Butane, and convert it: butane --strict config.bu > config.ign"


def check(data: bytes, name: str) -> bytes:
    """Return *data* if it is an Ignition configuration. Raises ConfigError; *name* is its file."""
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{name} is larger than {MAX_BYTES >> 20} MiB",
            hint="let Ignition fetch large files by URL",
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON: {error}", hint=_HINT) from error
    section = document.get("ignition") if isinstance(document, dict) else None
    version = section.get("version") if isinstance(section, dict) else None
    if version is None:
        raise ConfigError(f"ignition.version not found in {name}", hint=_HINT)
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ConfigError(f"{name} has an invalid ignition.version: {shown(str(version))}")
    return data
