"""Detects machines whose creating process was killed.

Until a machine is complete, its metadata names the creating process. If that process is killed, the
next command that finds the leftovers removes them.
"""

from __future__ import annotations

import os
from pathlib import Path

from armvm.base.errors import Conflict
from armvm.host.domain.instance import Instance
from armvm.host.domain.metadata import Creator


def myself() -> Creator:
    """Return this process as a Creator, which no later process can equal."""
    pid = os.getpid()
    return Creator(host=_place(), pid=pid, started=_started(pid) or 0)


def is_dead(creator: Creator) -> bool:
    """Return whether a creator is known to be dead. One on another host may be alive."""
    if creator.host == _place():
        return _started(creator.pid) != creator.started
    machine, boot, _ = _place().split("/", 2)
    theirs = creator.host.split("/", 2)
    return bool(machine) and theirs[0] == machine and theirs[1:2] != [boot]  # an earlier boot


def is_left_behind(instance: Instance) -> bool:
    """Return whether a killed process left a machine behind, unfinished or partly removed."""
    return instance.record.creator is not None and is_dead(instance.record.creator)


def assert_whole(instance: Instance) -> None:
    """Raise Conflict for a machine that is being created or was left behind; hints at the cure."""
    creator = instance.record.creator
    if creator is None:
        return
    name = instance.name
    if is_dead(creator):
        raise Conflict(
            f"{name} is incomplete: it was left behind by an interrupted armvm",
            hint=f"remove it, then create it again: armvm delete {name}",
        )
    raise Conflict(
        f"{name} is being created by process {creator.pid}",
        hint=f"wait until it is ready, or stop that process: kill {creator.pid}",
    )


def _place() -> str:
    """Return the scope of process ids: this host, its current boot, and this PID namespace.

    The host's part is empty if it has no machine-id(5).
    """
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the text, not a path
    return f"{machine}/{boot}/{namespace}"


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it does not exist.

    Source: proc(5), /proc/PID/stat, field 22. The command in field 2 may contain any character, so
    fields are counted from its closing parenthesis. A zombie counts as ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
