"""Hosts by name, from the configuration: what ``--on`` takes.

::

    [hosts]
    lab1 = "qemu+ssh://root@lab1/system"
    lab2 = "qemu+ssh://root@lab2/system"
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from armvm.base.errors import ArmvmError, NotFound, UsageError
from armvm.settings.names import check_host_name, shown

if TYPE_CHECKING:
    from armvm.settings.config_file import ConfigFile

#: The environment variable that names a host, as ``--on`` does.
VARIABLE = "ARMVM_ON"
#: The word that means every host, where a command accepts several. No host can have this name.
ALL = "all"

URI_HINT = "for example qemu:///system, qemu:///session, qemu+ssh://user@host/system"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


@dataclass(frozen=True, kw_only=True)
class Host:
    """A libvirt with a name. ``place`` is the file that has it, printable."""

    name: str
    uri: str
    place: str


def hosts_in(files: Sequence[Path]) -> Mapping[str, Host]:
    """Return the hosts of *files* by name, in their order; the first file with a name wins.

    Raises ConfigError with the file for an invalid name or URI, or a name that a queue or a cloud
    has too, and PermissionDenied.
    """
    from armvm.settings.config_file import read_config

    found: dict[str, Host] = {}
    for path in files:
        file = read_config(path)
        if file is None:
            continue
        for name, uri in file.document.get("hosts", {}).items():
            if (why := why_no_name(name)) is not None:
                file.refuse(("hosts",), name, why)
            if not isinstance(uri, str):
                file.refuse(("hosts",), name, "expected a libvirt URI as a string")
            wrong = uri_problem(uri)
            if wrong is not None:
                file.refuse(("hosts",), name, f"{wrong[0]}; {wrong[1]}")
            found.setdefault(name, Host(name=name, uri=uri, place=file.place))
    for name, (table, other) in _others(files).items():
        if name in found:
            other.refuse((table,), name, f"a host in {found[name].place} has this name")
    return found


def _others(files: Sequence[Path]) -> Mapping[str, tuple[str, ConfigFile]]:
    """Return the names that hosts cannot have, each with its table and its first file.

    Raises ConfigError for a name in two tables.
    """
    from armvm.settings.config_file import read_config

    found: dict[str, tuple[str, ConfigFile]] = {}
    for path in files:
        if (file := read_config(path)) is None:
            continue
        for table in ("queues", "clouds"):
            for name in file.document.get(table, {}):
                first = found.setdefault(name, (table, file))
                if first[0] != table:
                    file.refuse((table,), name, f"[{first[0]}] in {first[1].place} has this name")
    return found


def find_host(name: str, files: Sequence[Path], other: str | None = None) -> Host:
    """Return the host *name* of *files*. Raises what `unknown` returns, and ConfigError."""
    known = hosts_in(files)
    if name in known:
        return known[name]
    raise unknown(name, known, files, other)


def unknown(
    name: str, known: Mapping[str, Host], files: Sequence[Path], other: str | None = None
) -> ArmvmError:
    """Return the error for a name that no host has: it lists the known hosts.

    *other* is the table (queues, clouds) whose names the command takes too.
    """
    others = _others(files)
    table, _ = others.get(name, ("", None))
    hosts = f"known hosts: {', '.join(known) or 'none'}"
    if table == "queues":
        return UsageError(
            f"{name} is a queue, not a host: only armvm run can use it",
            hint=f"armvm run --on {name} -- CMD; {hosts}",
        )
    if table == "clouds":
        return UsageError(f"{name} is a cloud: this command needs a libvirt host", hint=hosts)
    what, tables, names, where = "host", "[hosts]", list(known), ""
    if other is not None:
        what, tables = f"host or {other.removesuffix('s')}", f"[hosts] or [{other}]"
        names += [one for one, (table, _) in others.items() if table == other]
        where = f" ([hosts] and [{other}] of config.toml)"
    return NotFound(
        f"{what} {shown(name)} not found",
        hint="known: " + ", ".join(names) + where
        if names
        else f"no {what} has a name yet: add {tables} to config.toml with armvm config edit; "
        "to use a URI: --connect",
    )


def uri_problem(uri: str) -> tuple[str, str] | None:
    """Return what is wrong with a libvirt URI, and a hint; None if nothing is.

    libvirt passes the host and the user to ssh. The path decides which daemon answers: without it,
    a host's name takes its place.
    """
    scheme, colon, rest = uri.partition(":")
    plain = uri.isprintable() and " " not in uri
    if not plain or not colon or not _SCHEME.fullmatch(scheme):
        return f"invalid connection URI {shown(uri)}", URI_HINT
    authority, _, path = rest.removeprefix("//").partition("?")[0].partition("/")
    if not rest.startswith("//"):
        return None
    if any(part.startswith("-") for part in authority.rsplit("@", 1)):
        return (
            f"invalid connection URI {shown(uri)}: user and host cannot begin with '-'",
            URI_HINT,
        )
    if authority and not path and scheme.split("+")[0] == "qemu":
        local = scheme in ("qemu", "qemu+unix") and authority in ("system", "session")
        meant = f"{scheme}:///{authority}" if local else f"{scheme}://{authority}/system"
        return (
            f"invalid connection URI {shown(uri)}: no path after the host {shown(authority)}",
            f"did you mean {meant}? {URI_HINT}",
        )
    return None


def why_no_name(name: str) -> str | None:
    """Return why no host, queue or cloud can have a name; None if one can."""
    from armvm.base.errors import ConfigError

    try:
        check_host_name(name)
    except ConfigError as error:
        return f"{error.message}; {error.hint}"
    return None
