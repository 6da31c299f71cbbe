"""Who may log in to a new machine, as a use case over guest's credentials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from armvm.base.paths import data_dir, ssh_home
from armvm.guest.cloudinit import credentials


def login_keys(files: Sequence[Path]) -> tuple[tuple[str, ...], bool]:
    """Return the public keys that may log in, and whether armvm's own key is the one among them.

    They are those in *files*, else the caller's in the home where ssh looks for their private
    halves, else armvm's own, made on first use.
    """
    keys = credentials.read_public_keys(files) or credentials.callers_keys(ssh_home())
    if keys:
        return keys, False
    return (credentials.own_key(data_dir())[1],), True


def hash_password(password: str) -> str:
    """Return a password's hash, fit for the seed. Raises ConfigError for one that cannot be."""
    return credentials.hash_password(password)
