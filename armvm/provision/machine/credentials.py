"""Selects the login credentials of a new machine; `armvm.guest.cloudinit` reads and makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from armvm.base.paths import data_dir, ssh_home
from armvm.guest.cloudinit import credentials


def login_keys(files: Sequence[Path]) -> tuple[tuple[str, ...], bool]:
    """Return the public keys that may log in, and whether they are armvm's own key.

    Uses the keys in *files*, else the caller's keys in the home directory that ssh uses, else
    armvm's own key, which is created on first use.
    """
    keys = credentials.read_public_keys(files) or credentials.callers_keys(ssh_home())
    if keys:
        return keys, False
    return (credentials.own_key(data_dir())[1],), True


def hash_password(password: str) -> str:
    """Return a password's hash for the seed. Raises ConfigError for an invalid password."""
    return credentials.hash_password(password)
