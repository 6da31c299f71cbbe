"""Where images come from, as environment and configuration files say."""

from __future__ import annotations

import os

from armvm.images.resolve import Settings
from armvm.paths import config_files


def settings() -> Settings:
    """Return mirrors and catalogs. Raises ConfigError and PermissionDenied."""
    return Settings.from_environ(os.environ, files=config_files())
