"""The directories that armvm uses (cache, data, state, configuration), and files written safely.

They follow the XDG base directory specification, through platformdirs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.errors import PermissionDenied, StorageError
from armvm.base.result import Doc


def cache_dir() -> Path:
    """The directory of verified images and known-hosts files: all of it can be recreated."""
    from platformdirs import user_cache_path

    return user_cache_path("armvm")


def data_dir() -> Path:
    """The directory of the armvm ssh key pair and, for ``qemu:///session``, the storage pool."""
    from platformdirs import user_data_path

    return user_data_path("armvm")


def state_dir() -> Path:
    """The directory of logs from background work."""
    from platformdirs import user_state_path

    return user_state_path("armvm")


def runtime_dir() -> Path:
    """The directory of sockets: the user's runtime directory, or the cache if there is none."""
    usual = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    return usual if usual.is_absolute() and usual.is_dir() else cache_dir()


@dataclass(frozen=True, kw_only=True)
class ConfigPath:
    """A configuration file."""

    path: Annotated[Path, Doc("Its path.")]
    exists: Annotated[bool, Doc("Whether it exists.")]


def config_files() -> tuple[Path, ...]:
    """The configuration files, highest precedence first."""
    from platformdirs import user_config_path

    return user_config_path("armvm") / "config.toml", Path("/etc/armvm/config.toml")


def config_home() -> Path:
    """The directory that holds the configuration of all the user's programs."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def ssh_home() -> Path:
    """Return the home directory that ssh uses: the password database's, not ``HOME``.

    Source: OpenSSH's ssh.c and misc.c (tilde_expand): both call getpwuid(3).
    """
    import pwd

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # ssh itself refuses to run in this case
        return Path.home()


def private_dir(path: Path) -> Path:
    """Create a directory that only its owner can enter, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time run the block; the others wait. *path* stays. Raises OSError."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Translate file system errors in a directory of armvm: PermissionDenied, StorageError."""
    try:
        yield
    except PermissionError as error:
        raise PermissionDenied(
            f"{path} cannot be used: {error.strerror}", hint="check its owner and permissions"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be used: {error.strerror or error}",
            hint="check whether its file system is full or read-only",
        ) from error


@contextmanager
def state_locked(name: str) -> Iterator[None]:
    """Like `locked`, with a file of that name in the state directory.

    Raises PermissionDenied, StorageError.
    """
    with ExitStack() as held:
        with file_errors(state_dir()):
            held.enter_context(locked(private_dir(state_dir()) / name))
        yield


def resources(kind: str) -> Path:
    """Return a data directory, from the wheel or the checkout.

    *kind* is ``templates``, ``cloud-init`` or ``docs/explain``.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data" / kind
    return installed if installed.is_dir() else package.parent / kind


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file atomically: readers see either the old or the new content."""
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    # O_EXCL: never write through someone else's file or link, even in a directory such as /tmp.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
