"""Validate the keys of a cloud-config that the user and armvm share.

Source: cloud-init's code (``distros/ug_util.py``, ``util.shellify``), which accepts more forms
than its documentation describes, and ignores a whole key if one entry is invalid.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from armvm.base.errors import ConfigError

_HOST_KEY = frozenset({"ed25519_private", "ed25519_public"})


def mergeable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cloud-config with all forms that cloud-init accepts turned into lists, for merging.

    A null of a checked key is left out. Raises ConfigError for a value that would make
    cloud-init fail before it has set up armvm's account, key, files or commands.
    """
    return {
        key: SHAPES[key](value) if key in SHAPES else value
        for key, value in document.items()
        if not (value is None and key in SHAPES)
    }


def _refused(key: str, value: object, wanted: str, hint: str | None = None) -> ConfigError:
    return ConfigError(
        f"--user-data: {key}: expected {wanted}",
        # Aliases can make a value far larger than its text.
        detail=f"it is {(value if isinstance(value, str) else reprlib.repr(value))[:80]!a}",
        hint=hint or "cloud-init would also ignore armvm's settings",
    )


def _users(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, dict):
        return [entry for name, one in value.items() for entry in _named(str(name), one)]
    if not isinstance(value, list):
        raise _refused("users", value, "a list")
    for entry in value:
        names = entry if isinstance(entry, list) else [entry]
        mapping = isinstance(entry, dict) and all(isinstance(key, str) for key in entry)
        if not mapping and not all(isinstance(name, str) for name in names):
            raise _refused(
                "users", entry, "names and mappings", "for example: users: [{name: eve}]"
            )
    return value


def _named(name: str, value: Any) -> list[Any]:
    """Return a user as cloud-init reads `users: {name: value}`: empty if the value is false."""
    if isinstance(value, dict):
        return _users([{"name": name, **value}])
    if isinstance(value, bool | int | float | str):
        return [name] if str(value).lower().strip() in ("true", "1", "on", "yes") else []
    raise _refused(f"users.{name}", value, "a mapping, or true", f"for example: {name}: {{}}")


def _user(value: Any) -> Any:
    """Check the settings of the image's default user."""
    mapping = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if value and not mapping and not isinstance(value, str):
        raise _refused("user", value, "a name or a mapping", "for example: user: {name: eve}")
    return value


def _strings(key: str) -> Callable[[Any], list[Any]]:
    def read(value: Any) -> list[Any]:
        if not isinstance(value, str | list):
            raise _refused(key, value, "a list")
        return [value] if isinstance(value, str) else value

    return read


def _commands(key: str) -> Callable[[Any], list[Any]]:
    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _refused(key, value, "a list of commands", f"for example: {key}: [date]")
        for entry in value:
            if not isinstance(entry, str | list | None):
                hint = "quote a command that contains a colon and a space"
                raise _refused(key, entry, "strings and lists", hint)
        return value

    return read


def _files(value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        hint = "for example: write_files: [{path: /etc/motd, content: hello}]"
        raise _refused("write_files", value, "a list of mappings", hint)
    return value


def _ssh_keys(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise _refused("ssh_keys", value, "a mapping of keys to strings")
    if _HOST_KEY & value.keys():
        raise ConfigError(
            "--user-data: ssh_keys cannot set an Ed25519 key: armvm sets that host key",
            detail="armvm generates this key and verifies the machine with it",
            hint="remove ed25519_private and ed25519_public; other key types are allowed",
        )
    return value


def _groups(value: Any) -> Any:
    def members(table: Mapping[Any, Any]) -> bool:
        return all(isinstance(one, str | list) for one in table.values())

    entries: Sequence[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) or (isinstance(one, dict) and members(one)) for one in entries):
        raise _refused("groups", value, "names, with lists of members", "groups: [{staff: [eve]}]")
    return value


#: Keys that armvm sets, or without which cloud-init creates no account, and how to read each.
SHAPES: dict[str, Callable[[Any], Any]] = {
    "users": _users,
    "user": _user,
    "groups": _groups,
    "packages": _strings("packages"),
    "ssh_authorized_keys": _strings("ssh_authorized_keys"),
    "write_files": _files,
    "runcmd": _commands("runcmd"),
    "bootcmd": _commands("bootcmd"),
    "ssh_keys": _ssh_keys,
}
