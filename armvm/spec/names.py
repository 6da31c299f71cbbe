"""Which names machines and users may have.

A machine's name becomes a host name, a file name, an XML value and a shell argument, so it is
held to the strictest of these: an RFC 1123 host name label in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from armvm.errors import ConfigError

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: What Debian's useradd accepts (its NAME_REGEX), capped at the 32 bytes of utmp.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
#: A part of a file's name.
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
#: Accounts every distribution has already; cloud-init would silently change them.
_TAKEN_USERS = frozenset(
    "root daemon bin sys sync games man lp mail news proxy backup list irc nobody sshd".split()
)


def check_machine_name(name: str) -> str:
    """Return *name* if a machine can be called that, else raise ConfigError."""
    if _LABEL.fullmatch(name):
        return name
    raise ConfigError(
        f"{shown(name)} cannot be a machine's name",
        hint="use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends: arm64-01",
    )


def check_user_name(name: str) -> str:
    """Return *name* if it can be the guest's user, else raise ConfigError."""
    if not _USER.fullmatch(name):
        raise ConfigError(
            f"{shown(name)} cannot be a user name",
            hint="use 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or '_'",
        )
    if name in _TAKEN_USERS:
        raise ConfigError(
            f"the guest has an account called {name} already",
            hint="choose another --user; it may use sudo without a password",
        )
    return name


def check_snapshot_name(name: str) -> str:
    """Return *name* if a snapshot can be called that, else raise ConfigError."""
    if _SNAPSHOT.fullmatch(name):
        return name
    raise ConfigError(
        f"{shown(name)} cannot be a snapshot's name",
        hint="use 1 to 60 of letters, digits, '.', '_' and '-', beginning with a letter or digit",
    )


def check_object_name(kind: str, name: str) -> str:
    """Return *name* if it can name a libvirt network or pool, else raise ConfigError."""
    if name and len(name) <= 255 and name.isprintable() and "/" not in name and name != "..":
        return name
    raise ConfigError(f"{shown(name)} cannot be the name of a {kind}")


def next_name(taken: Collection[str], prefix: str = "arm64") -> str:
    """Return the first of ``arm64-01``, ``arm64-02``, … that is not *taken*."""
    number = 1
    while f"{prefix}-{number:02d}" in taken:
        number += 1
    return f"{prefix}-{number:02d}"


def shown(text: str, limit: int = 60) -> str:
    """Return outside text in a form that is safe to print: quoted, escaped, cut."""
    quoted = ascii(text) if not text.isprintable() else f"'{text}'"
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}…"
