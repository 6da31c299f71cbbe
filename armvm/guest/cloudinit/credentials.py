"""Login credentials: the caller's public keys, armvm's own key, a hashed password."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from armvm.base.errors import ConfigError, NotFound, PermissionDenied
from armvm.base.paths import locked, private_dir, write_atomic
from armvm.settings.names import shown

#: Key types that OpenSSH accepts in authorized_keys, without DSA (removed in OpenSSH 10), and the
#: number of fields in a key's blob (RFC 4253, section 6.6; RFC 8709; PROTOCOL.u2f).
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

    For a private key's name, reads the ``.pub`` file beside it. Raises NotFound,
    PermissionDenied, or ConfigError for a file without keys or with an invalid line.
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
                f"ssh key {shown(str(file))} not found",
                hint="create one: ssh-keygen -t ed25519; without --ssh-key, armvm uses your keys "
                "or creates one",
            ) from error
        except PermissionError as error:
            raise PermissionDenied(f"permission denied: cannot read {source}") from error
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise ConfigError(f"invalid ssh public key {shown(str(file))}: {why}") from error
        keys += _keys_in(text, shown(str(source)))
    return tuple(dict.fromkeys(keys))


def _keys_in(text: str, source: str) -> list[str]:
    """Return the keys in a file's text. Raises ConfigError for an invalid line."""
    keys: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if is_public_key(line):
            keys.append(line.strip())
        elif line.strip() and not line.lstrip().startswith("#"):
            why, hint = _problem(line)
            raise ConfigError(f"{source}: line {number}: invalid ssh public key: {why}", hint=hint)
    if not keys:
        raise ConfigError(f"{source}: no ssh public key: the file is empty", hint=_HINT)
    return keys


def _problem(line: str) -> tuple[str, str]:
    """Return why a line is an invalid public key, and a hint. Neither repeats the line."""
    words = line.split()
    if "PRIVATE KEY" in line:
        return "it is a private key", "write its public key: ssh-keygen -y -f KEY > KEY.pub"
    if "BEGIN SSH2 PUBLIC KEY" in line:
        return "it is in RFC 4716 format", "convert it: ssh-keygen -i -f FILE"
    if words[0] == "ssh-dss":
        return (
            "it is a DSA key, which OpenSSH no longer supports",
            "create another key: ssh-keygen -t ed25519",
        )
    if "-cert-v01@openssh.com" in words[0]:
        return "it is a certificate", "use the public key that it certifies"
    if words[0] in _TYPES:
        return "it is cut off, wrapped or damaged", _HINT
    if any(word in _TYPES for word in words[1:]):
        return "keys with options are not supported", (
            "remove the options; in --user-data, ssh_authorized_keys accepts options"
        )
    return "unknown key type", _HINT


def is_public_key(line: str) -> bool:
    """Return whether *line* is an OpenSSH public key: a type, and a complete blob of that type."""
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
    """Return the length-prefixed fields of a key's blob; empty if it is cut off."""
    fields = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        if len(blob) < end:
            return []
        fields.append(blob[4:end])
        blob = blob[end:]
    return fields


def callers_keys(home: Path) -> tuple[str, ...]:
    """Return the public keys in the caller's ``~/.ssh/id_*.pub``; empty if there are none."""
    keys: list[str] = []
    for file in sorted((home / ".ssh").glob("id_*.pub")):
        try:
            lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        except OSError:
            continue  # skip keys that cannot be read
        keys += [line.strip() for line in lines if is_public_key(line)]
    return tuple(dict.fromkeys(keys))


def own_key(directory: Path) -> tuple[Path, str]:
    """Return armvm's own private key file and its public key; creates them on first use.

    Raises PermissionDenied if the directory cannot be written, ConfigError if the existing file
    is not a key.
    """
    private, public = directory / "id_ed25519", directory / "id_ed25519.pub"
    try:
        private_dir(directory)
        with locked(directory / ".lock"):
            if not (private.exists() and public.exists()):
                _make_own_key(private, public)
        return private, public.read_text().strip()
    except OSError as error:
        raise PermissionDenied(
            f"cannot store armvm's ssh key in {directory}: {error.strerror}",
            hint="use your own key: --ssh-key FILE",
        ) from error


def _make_own_key(private: Path, public: Path) -> None:
    from armvm.guest.identity import new_key_pair, public_key  # a login does not need it

    if not private.exists():
        pair = new_key_pair(comment="armvm")
        write_atomic(private, pair.private.encode(), mode=0o600)
        write_atomic(public, pair.public.encode() + b"\n", mode=0o644)
    else:  # existing machines trust the private key, so never replace it
        words = public_key(private.read_text(), comment="armvm")
        write_atomic(public, words.encode() + b"\n", mode=0o644)


def hash_password(password: str) -> str:
    """Return a password as the crypt(3) hash that goes into the seed: bcrypt, ``$2b$``.

    libxcrypt and Alpine support it. Raises ConfigError if the password is empty, or longer than
    the 72 bytes that bcrypt uses.
    """
    import bcrypt

    if not password or len(password.encode()) > 72 or "\0" in password:
        raise ConfigError("invalid password: expected 1 to 72 bytes without a zero byte")
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=10)).decode()
