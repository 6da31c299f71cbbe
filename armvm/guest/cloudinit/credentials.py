"""Who may log in: the caller's public keys, a key of armvm's own, a hashed password."""

from __future__ import annotations

import base64
import binascii
import fcntl
from collections.abc import Sequence
from pathlib import Path

from armvm.base.errors import ConfigError, NotFound, PermissionDenied
from armvm.base.paths import private_dir, write_atomic
from armvm.settings.names import shown

#: Key types that OpenSSH takes in authorized_keys, without DSA (gone since OpenSSH 10), and how
#: many fields there are in a key's blob (RFC 4253, section 6.6; RFC 8709; PROTOCOL.u2f).
_TYPES = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
_HINT = "a public key is one line: ssh-ed25519 AAAA… name"


def read_public_keys(files: Sequence[Path]) -> tuple[str, ...]:
    """Return the public keys in *files*, one or more in each.

    For a private key's name the ``.pub`` beside it is read. Raises NotFound, PermissionDenied,
    or ConfigError for a file that holds no public key, or a line that is none.
    """
    keys: list[str] = []
    for file in files:
        source = file
        try:
            public = file if file.suffix == ".pub" else Path(f"{file}.pub")
            source = public if public.exists() else file
            text = source.read_text(encoding="utf-8-sig", errors="replace")
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no ssh key {shown(str(file))}",
                hint="ssh-keygen -t ed25519   makes one; without --ssh-key, armvm finds yours or "
                "makes one for you",
            ) from error
        except PermissionError as error:
            raise PermissionDenied(f"{source} cannot be read") from error
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise ConfigError(f"{shown(str(file))} is no ssh public key: {why}") from error
        keys += _keys_in(text, shown(str(source)))
    return tuple(dict.fromkeys(keys))


def _keys_in(text: str, source: str) -> list[str]:
    """Return the keys in a file's text. Raises ConfigError for any line that is none."""
    keys: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if is_public_key(line):
            keys.append(line.strip())
        elif line.strip() and not line.lstrip().startswith("#"):
            why, hint = _problem(line)
            raise ConfigError(f"{source}: line {number} is no ssh public key: {why}", hint=hint)
    if not keys:
        raise ConfigError(f"{source} holds no ssh public key: it is empty", hint=_HINT)
    return keys


def _problem(line: str) -> tuple[str, str]:
    """Return why a line is no public key, and what to do. Nothing of the line is repeated."""
    words = line.split()
    if "PRIVATE KEY" in line:
        return "it is a private key", "ssh-keygen -y -f KEY > KEY.pub   writes its public key"
    if "BEGIN SSH2 PUBLIC KEY" in line:
        return "it has another format (RFC 4716)", "ssh-keygen -i -f FILE   converts it"
    if words[0] == "ssh-dss":
        return (
            "it is a DSA key, which OpenSSH no longer takes",
            "ssh-keygen -t ed25519   makes another",
        )
    if "-cert-v01@openssh.com" in words[0]:
        return "it is a certificate", "name the public key that it was made for"
    if words[0] in _TYPES:
        return "it is cut off, wrapped or damaged", _HINT
    if any(word in _TYPES for word in words[1:]):
        return "keys with options are not taken", (
            "leave the options out; --user-data can have ssh_authorized_keys with options"
        )
    return "it has no known key type", _HINT


def is_public_key(line: str) -> bool:
    """Tell whether *line* is an OpenSSH public key: a type, and a whole blob of that type."""
    words = line.split()
    if len(words) < 2 or words[0] not in _TYPES or not line.strip().isprintable():
        return False
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return False
    fields = _fields(blob)
    return len(fields) == _TYPES[words[0]] and fields[0] == words[0].encode() and b"" not in fields


def _fields(blob: bytes) -> list[bytes]:
    """Return the fields of a key's blob, each with its length before it; none if it is cut off."""
    fields = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        if len(blob) < end:
            return []
        fields.append(blob[4:end])
        blob = blob[end:]
    return fields


def callers_keys(home: Path) -> tuple[str, ...]:
    """Return the public keys in the caller's ``~/.ssh/id_*.pub``; none where there are none."""
    keys: list[str] = []
    for file in sorted((home / ".ssh").glob("id_*.pub")):
        try:
            lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
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
