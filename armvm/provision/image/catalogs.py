"""The sources of images, from the environment and configuration files."""

from __future__ import annotations

import os

from armvm.base.paths import config_files
from armvm.images.resolve import Settings
from armvm.settings.verify import Verify


def settings(verify: Verify | None = None) -> Settings:
    """Return mirrors, catalogs and key servers; *verify* as in Settings.

    Raises ConfigError and PermissionDenied.
    """
    return Settings.from_environ(os.environ, files=config_files(), verify=verify)
