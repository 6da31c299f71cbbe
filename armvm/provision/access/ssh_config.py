"""Host entries for the user's ssh configuration: a file for each machine, and one Include line.

They do not contain the address: ssh runs `armvm proxy`, which asks libvirt for it each time.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base.paths import private_dir, write_atomic
from armvm.base.result import Doc
from armvm.host.connection import Connection, uri_of
from armvm.host.domain.instance import Instance, instances
from armvm.provision.access import ssh_options
from armvm.provision.access.ssh import common_options
from armvm.provision.access.ssh_include import exclude, include
from armvm.provision.machine.known_hosts import ssh_config_dir, ssh_config_file
from armvm.provision.machine.pick import pick

#: Start of the line in a machine's file that names its libvirt.
_ORIGIN = "# on "


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A machine in the user's ssh configuration."""

    name: Annotated[str, Doc("The machine; also the Host name for ssh.")]
    file: Annotated[Path, Doc("The file that --install writes for it.")]
    ssh_config: Annotated[str, Doc("The content of the file: see ssh_config(5).")]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Machines in the user's ssh configuration."""

    config: Annotated[Path, Doc("Path of the user's ssh configuration; it may not exist yet.")]
    changed: Annotated[
        bool, Doc("Whether this call added (--install) or removed (--remove) the Include line.")
    ]
    machines: Annotated[list[Entry], Doc("The machines shown, installed or removed.")]


def show(connection: Connection, names: Sequence[str], home: Path) -> Outcome:
    """Return what `install` would write, for the named machines or all."""
    entries = [_entry(connection, instance) for instance in _chosen(connection, names)]
    return Outcome(config=home / ".ssh" / "config", changed=False, machines=entries)


def install(connection: Connection, names: Sequence[str], home: Path) -> Outcome:
    """Write the machines' files, and include them in the user's ssh configuration.

    Without *names*, write all machines of this libvirt, and remove the files of deleted ones.
    Raises NotFound, ConfigError, PermissionDenied.
    """
    done = show(connection, names, home)
    private_dir(ssh_config_dir())
    for entry in done.machines:
        write_atomic(entry.file, entry.ssh_config.encode())
    if not names:
        here = f"{_ORIGIN}{uri_of(connection)}\n"
        for path in _files() - {entry.file for entry in done.machines}:
            if path.read_text(errors="replace").startswith(here):
                path.unlink(missing_ok=True)
    return replace(done, changed=include(done.config, _line()))


def remove(connection: Connection, names: Sequence[str], home: Path) -> Outcome:
    """Remove machines' files; without *names*, all files that `install` wrote.

    With the last file, also remove the Include line. Raises NotFound, PermissionDenied.
    """
    there = _files()
    found = show(connection, names, home)
    entries = [entry for entry in found.machines if entry.file in there]
    gone = {entry.file for entry in entries} if names else there
    for path in gone:
        path.unlink(missing_ok=True)
    changed = exclude(found.config, _line()) if gone == there else False
    return replace(found, changed=changed, machines=entries)


def _chosen(connection: Connection, names: Sequence[str]) -> list[Instance]:
    """Return the named machines, or all. Raises NotFound."""
    if not names:
        # A machine that is still being created may become a golden, or be removed.
        return [one for one in instances(connection) if one.record.creator is None]
    return [pick(connection, name).instance for name in names]


def host_block(connection: Connection, instance: Instance) -> str:
    """Return a machine's part of an ssh configuration."""
    uri = uri_of(connection)
    proxy = [*_program(), "proxy", "--connect", uri, "--uuid", instance.uuid]
    options = ssh_options.understood(
        {
            "HostName": instance.name,
            "Port": "22",
            "ProxyCommand": ssh_options.proxy_command(proxy),
            **common_options(instance),
        }
    )
    lines = [f"    {key} {value}" for key, value in options.items()]
    return "\n".join([f"{_ORIGIN}{uri}", f"Host {instance.name}", *lines]) + "\n"


def _entry(connection: Connection, instance: Instance) -> Entry:
    text = host_block(connection, instance)
    return Entry(name=instance.name, file=ssh_config_file(instance.uuid), ssh_config=text)


def _files() -> set[Path]:
    return set(ssh_config_dir().glob("*.conf"))


def _line() -> str:
    return f"Include {ssh_options.pattern(ssh_config_dir())}"


def _program() -> list[str]:
    """Return a command that runs this armvm from any directory."""
    beside = Path(sys.executable).with_name("armvm")
    if beside.exists():
        return [str(beside)]
    found = shutil.which("armvm")
    return [found] if found else [sys.executable, "-m", "armvm"]
