"""Who may log in: the caller's public keys, a key of armvm's own, a hashed password."""

from __future__ import annotations

import base64
import binascii
import fcntl
from collections.abc import Sequence
from pathlib import Path

from armvm.errors import ConfigError, NotFound, PermissionDenied
from armvm.paths import private_dir, write_atomic
from armvm.spec.names import shown

#: Key types that OpenSSH takes in authorized_keys, without DSA (gone since OpenSSH 10).
_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def read_public_keys(files: Sequence[Path]) -> tuple[str, ...]:
    """Return the public keys in *files*, one or more in each.

    For a private key's name the ``.pub`` beside it is read. Raises NotFound, PermissionDenied,
    or ConfigError for a file that holds no public key.
    """
    keys: list[str] = []
    for file in files:
        public = file if file.suffix == ".pub" else file.with_name(file.name + ".pub")
        source = file
        try:
            source = public if public.exists() else file
            text = source.read_text(errors="replace")
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no ssh key {shown(str(file))}",
                hint="ssh-keygen -t ed25519   makes one; without --ssh-key, armvm finds yours or "
                "makes one for you",
            ) from error
        except PermissionError as error:
            raise PermissionDenied(f"{source} cannot be read") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{shown(str(file))} is no ssh public key: {error}") from error
        found = [line.strip() for line in text.splitlines() if is_public_key(line)]
        if not found:
            raise ConfigError(
                f"{shown(str(source))} holds no ssh public key",
                hint="a public key is one line: ssh-ed25519 AAAA… name",
            )
        keys += found
    return tuple(dict.fromkeys(keys))


def is_public_key(line: str) -> bool:
    """Tell whether *line* is an OpenSSH public key: a type, and a blob that names that type."""
    words = line.split()
    if len(words) < 2 or words[0] not in _TYPES or not line.strip().isprintable():
        return False
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return False
    length = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + length] == words[0].encode() and len(blob) > 4 + length


def callers_keys(home: Path) -> tuple[str, ...]:
    """Return the public keys in the caller's ``~/.ssh/id_*.pub``; none where there are none."""
    keys: list[str] = []
    for file in sorted((home / ".ssh").glob("id_*.pub")):
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue  # a key that cannot be read is none of the caller's
        keys += [line.strip() for line in lines if is_public_key(line)]
    return tuple(dict.fromkeys(keys))


def own_key(directory: Path) -> tuple[Path, str]:
    """Return armvm's own private key file and its public key; they are made on first use.

    Raises PermissionDenied when the directory cannot be written, ConfigError when what is there
    is no key.
    """
    private, public = directory / "id_ed25519", directory / "id_ed25519.pub"
    try:
        private_dir(directory)
        with (directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (private.exists() and public.exists()):
                _make_own_key(private, public)
        return private, public.read_text().strip()
    except OSError as error:
        raise PermissionDenied(
            f"armvm cannot keep its ssh key in {directory}: {error.strerror}",
            hint="give it a key of yours: --ssh-key FILE",
        ) from error


def _make_own_key(private: Path, public: Path) -> None:
    from armvm.guest.identity import new_key_pair, public_key  # a login needs none of it

    if not private.exists():
        pair = new_key_pair(comment="armvm")
        write_atomic(private, pair.private.encode(), mode=0o600)
        write_atomic(public, pair.public.encode() + b"\n", mode=0o644)
    else:  # machines know the private key: it is never replaced
        words = public_key(private.read_text(), comment="armvm")
        write_atomic(public, words.encode() + b"\n", mode=0o644)


def hash_password(password: str) -> str:
    """Return a password as the crypt(3) hash that goes into the seed: bcrypt, ``$2b$``.

    Every distribution with libxcrypt and every Alpine takes it. Raises ConfigError when it is
    empty, or longer than the 72 bytes bcrypt looks at.
    """
    import bcrypt

    if not password or len(password.encode()) > 72 or "\0" in password:
        raise ConfigError("a password has 1 to 72 bytes and no NUL")
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=10)).decode()
