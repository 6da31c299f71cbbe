"""Where armvm keeps files of its own: the user's cache, data and configuration directories.

They follow the XDG base directory specification by way of platformdirs.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.result import Doc


def cache_dir() -> Path:
    """Verified images and known-hosts files: all of it can be fetched or made again."""
    from platformdirs import user_cache_path

    return user_cache_path("armvm")


def data_dir() -> Path:
    """The user's own ssh key pair and, for ``qemu:///session``, the storage pool."""
    from platformdirs import user_data_path

    return user_data_path("armvm")


def state_dir() -> Path:
    """Logs of what was done in the background."""
    from platformdirs import user_state_path

    return user_state_path("armvm")


def runtime_dir() -> Path:
    """Sockets: the user's runtime directory, or the cache where there is none."""
    usual = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    return usual if usual.is_absolute() and usual.is_dir() else cache_dir()


@dataclass(frozen=True, kw_only=True)
class ConfigPath:
    """A configuration file."""

    path: Annotated[Path, Doc("Its path.")]
    exists: Annotated[bool, Doc("Whether it exists.")]


def config_files() -> tuple[Path, ...]:
    """The configuration files that are read, the strongest first."""
    from platformdirs import user_config_path

    return user_config_path("armvm") / "config.toml", Path("/etc/armvm/config.toml")


def config_home() -> Path:
    """The directory of the user's own configuration, of all programs."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def ssh_home() -> Path:
    """Return the home whose ``.ssh`` ssh reads: the password database's, whatever ``HOME`` says.

    Source: OpenSSH's ssh.c and misc.c (tilde_expand), which ask getpwuid(3).
    """
    import pwd

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # ssh itself refuses to run then
        return Path.home()


def private_dir(path: Path) -> Path:
    """Make a directory that only its owner can enter, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def resources(kind: str) -> Path:
    """Return a directory of data, from the wheel or the checkout.

    There are ``templates``, ``cloud-init`` and ``docs/explain``.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data" / kind
    return installed if installed.is_dir() else package.parent / kind


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, never half of them."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    # O_EXCL: nobody else's file or link is written through, also in a directory such as /tmp.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
