"""Knowing whether the process that was making a machine still lives.

A machine under way carries its maker in its metadata. A maker that was killed cannot clean up;
whoever meets its leftovers next does.
"""

from __future__ import annotations

import os
from pathlib import Path

from armvm.base.errors import Conflict
from armvm.host.domain.instance import Instance
from armvm.host.domain.metadata import Creator


def myself() -> Creator:
    """Return this process, in a form that no later process can be taken for."""
    pid = os.getpid()
    return Creator(host=_place(), pid=pid, started=_started(pid) or 0)


def is_dead(creator: Creator) -> bool:
    """Tell whether a maker is known to be dead; one on another host may be alive."""
    if creator.host == _place():
        return _started(creator.pid) != creator.started
    machine, boot, _ = _place().split("/", 2)
    theirs = creator.host.split("/", 2)
    return bool(machine) and theirs[0] == machine and theirs[1:2] != [boot]  # an earlier boot


def is_left_behind(instance: Instance) -> bool:
    """Tell whether a machine is what a killed process has left: not finished, or not removed."""
    return instance.record.creator is not None and is_dead(instance.record.creator)


def assert_whole(instance: Instance) -> None:
    """Raise Conflict, with the cure, for a machine that is being made or was left behind."""
    creator = instance.record.creator
    if creator is None:
        return
    name = instance.name
    if is_dead(creator):
        raise Conflict(
            f"{name} is what an interrupted armvm left behind",
            hint=f"armvm delete {name}   removes it; then it can be created again",
        )
    raise Conflict(
        f"{name} is being created just now, by process {creator.pid}",
        hint="wait until it is done, or end that process",
    )


def _place() -> str:
    """Return what process ids mean something in: this boot of this host, this PID namespace.

    The host's part is empty where it has no machine-id(5).
    """
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the text, not a path
    return f"{machine}/{boot}/{namespace}"


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None where there is none.

    Source: proc(5), /proc/PID/stat, field 22. The command in field 2 may hold anything, so the
    fields are counted from its closing parenthesis. A zombie has ended: it does nothing more.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
