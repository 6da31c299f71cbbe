"""Host entries for the user's ssh configuration: a file for each machine, and one Include line.

They do not contain the address: ssh runs `armvm proxy`, which asks libvirt for it each time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base import process, programs
from armvm.base.errors import ArmvmError, Conflict, NotFound
from armvm.base.paths import file_errors, private_dir, write_atomic
from armvm.base.progress import Progress
from armvm.base.result import Doc
from armvm.guest.ssh import options as ssh_options
from armvm.host.connection import Connection, connect, uri_of
from armvm.host.domain.instance import Instance, machines
from armvm.provision.access.ssh import common_options, connected, shared_socket
from armvm.provision.access.ssh_include import exclude, include
from armvm.provision.machine.known_hosts import ssh_config_dir, ssh_config_file
from armvm.provision.machine.pick import pick, pick_uuid

#: Set in the environment of an ssh that only prints its settings.
_ASKING = "ARMVM_SSH_SETTINGS"
#: In the settings that `ssh -G` prints: those that are there only for a forward, and the values of
#: others with which ssh forwards nothing. Older versions do not print all of them.
_LISTED = ("localforward", "remoteforward", "dynamicforward")
_HARMLESS = {"forwardagent": ("no",), "forwardx11": ("no",), "tunnel": ("no", "false")}
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
    Raises NotFound, ConfigError, PermissionDenied, StorageError, Conflict if a machine of another
    libvirt has the same name.
    """
    done = show(connection, names, home)
    with file_errors(ssh_config_dir()):
        private_dir(ssh_config_dir())
        outdated = [path for entry in done.machines for path in _outdated(connection, entry)]
        for entry in done.machines:
            write_atomic(entry.file, entry.ssh_config.encode())
        for path in outdated:
            path.unlink(missing_ok=True)
    if not names:
        here = f"{_ORIGIN}{uri_of(connection)}\n"
        for path in _files() - {entry.file for entry in done.machines}:
            if path.read_text(errors="replace").startswith(here):
                path.unlink(missing_ok=True)
    return replace(done, changed=include(done.config, _line()))


def renamed(connection: Connection, instance: Instance, progress: Progress) -> None:
    """Rewrite the file of a machine that has a new name, if there is one; on failure, remove it."""
    entry = _entry(connection, instance)
    if not entry.file.exists():
        return
    try:
        with file_errors(ssh_config_dir()):
            outdated = _outdated(connection, entry)
            write_atomic(entry.file, entry.ssh_config.encode())
            for path in outdated:
                path.unlink(missing_ok=True)
    except ArmvmError as error:
        with contextlib.suppress(OSError):
            entry.file.unlink(missing_ok=True)
        progress.warn(f"{instance.name} is no longer configured in ssh: {error.message}")


def _outdated(connection: Connection, entry: Entry) -> list[Path]:
    """Return other files for the name of a machine, whose machines no longer have it.

    Raises Conflict if one still has it or cannot be asked: ssh would use one of the two.
    """
    found = []
    for path in _files() - {entry.file}:
        lines = path.read_text(errors="replace").splitlines()
        if f"Host {entry.name}" not in lines:
            continue
        uri = lines[0].removeprefix(_ORIGIN) if lines[0].startswith(_ORIGIN) else None
        if _is_named(connection, uri, path.stem, entry.name):
            raise Conflict(
                f"ssh is already configured for {entry.name} of {uri}",
                hint=f"remove that: armvm ssh-config --remove {entry.name} --connect {uri}; or "
                f"delete {path}",
            )
        found.append(path)
    return found


def _is_named(connection: Connection, uri: str | None, uuid: str, name: str) -> bool:
    """Return whether a machine has a name; True if its libvirt does not answer."""
    try:
        there = connection if uri in (None, uri_of(connection)) else connect(uri)
        return pick_uuid(there, uuid).name == name
    except NotFound:
        return False
    except ArmvmError:
        return True


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
        return [one for one in machines(connection) if one.record.creator is None]
    return [pick(connection, name).instance for name in names]


def host_block(connection: Connection, instance: Instance) -> str:
    """Return a machine's part of an ssh configuration."""
    uri = uri_of(connection)
    proxy = [*_program(), "proxy", "--connect", uri, "--uuid", instance.uuid]
    shared = _shared_lines(uri, instance, [*proxy, "--share"])
    options = ssh_options.understood(
        {
            "HostName": instance.name,
            "Port": "22",
            "ProxyCommand": ssh_options.proxy_command(proxy),
            **common_options(instance),
        }
    )
    lines = [f"    {key} {value}" for key, value in options.items()]
    return "\n".join([f"{_ORIGIN}{uri}", *shared, f"Host {instance.name}", *lines]) + "\n"


def _shared_lines(uri: str, instance: Instance, check: Sequence[str]) -> list[str]:
    """Return the lines with which ssh uses the machine's shared connection if *check* succeeds.

    Empty if the connection has no socket, or if versions of ssh would read the command in
    different ways: newer ones treat a backslash before a quote or a backslash as an escape.
    """
    path = shared_socket(uri, instance)
    command = ssh_options.proxy_command(check)
    if path is None or re.search(r"[\"']|\\\\", command):
        return []
    return [
        f'Match originalhost {instance.name} exec "[ -z ${_ASKING} ] && {command}"',
        "    ControlMaster no",
        f"    ControlPath {ssh_options.quoted(path)}",
    ]


def can_share(uri: str | None, uuid: str) -> bool:
    """Return whether the ssh that started this process can use a machine's shared connection.

    Opens the connection if there is none.
    """
    try:
        machine = pick_uuid(connect(uri), uuid)
        if _is_alone(machine.instance.record.user):
            return False
        with connected(machine, batch=True) as where:
            return where.shared is not None
    except (ArmvmError, OSError, ValueError):
        return False  # ssh connects by itself, and reports what is wrong


def _is_alone(user: str) -> bool:
    """Return whether the ssh that started this process needs a connection of its own.

    The shared one belongs to *user*; a login as another would silently be this user's. It forwards
    neither an agent nor X11, and it would keep forwarding ports when ssh has ended. Raises OSError
    or ValueError if no ssh started this process.
    """
    pid = os.getppid()
    for _ in range(2):  # a shell may be in between
        name, fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)
        if name.endswith("(ssh"):
            break
        pid = int(fields.split()[1])
    else:
        raise ValueError("not started by ssh")
    words = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape").split("\0")[1:-1]
    told = process.run(["ssh", "-G", *words], env={_ASKING: "1"}, timeout=30).text
    settings = [line.partition(" ")[::2] for line in told.splitlines()]
    return (
        any(key in _LISTED or value not in _HARMLESS.get(key, (value,)) for key, value in settings)
        or ("sessiontype", "none") in settings
        or ("user", user) not in settings
    )


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
    return [found] if found else programs.own()
