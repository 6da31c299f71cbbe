"""Remove everything that a run created, or a killed run left: all names with the prefix."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from armvm.base.errors import ArmvmError
from armvm.base.poll import until
from armvm.base.process import run
from armvm.base.signals import shielded

#: Prefix of all machines, goldens and directories of the benchmarks.
PREFIX = "armvm-bench-"
#: The process id of a run's dockerd, below its directory.
DOCKER_PIDFILE = Path("docker/dockerd.pid")
_VIRSH = ("virsh", "-q", "-c", "qemu:///system")


def sweep(prefix: str = PREFIX) -> list[str]:
    """Remove every domain whose name begins with *prefix*; return those that remain.

    Machines are removed before goldens, which cannot be removed while they have clones. The peers'
    domains, which armvm does not manage, are destroyed and undefined. A second Ctrl-C waits.
    """
    with shielded():
        armvm = str(Path(sys.executable).with_name("armvm"))
        machines = [name for name in _listed(armvm, "list") if name.startswith(prefix)]
        if machines:
            _try(armvm, "delete", "--yes", *machines)
        for golden in _listed(armvm, "golden", "list"):
            if golden.startswith(prefix):
                _try(armvm, "golden", "delete", "--yes", golden)
        for name in _domains(prefix):
            _try(*_VIRSH, "destroy", name)
            _try(*_VIRSH, "undefine", "--nvram", name)
        return _domains(prefix)


def sweep_all() -> list[str]:
    """Remove the domains and directories of all runs; return the names of those that remain."""
    left = sweep()
    for directory in Path("/var/tmp").glob(f"{PREFIX}*"):  # noqa: S108
        end_daemon(directory / DOCKER_PIDFILE)
        shutil.rmtree(directory, ignore_errors=True)
    return left


def end_daemon(pidfile: Path, *, pid: int | None = None, patience: float = 30.0) -> None:
    """End the dockerd with this *pidfile*, if it runs; its containerd ends with it.

    *pid* is required while it may not have written the file yet. Another process with that id is
    left alone. dockerd is killed after *patience* seconds. Then unmount what it left mounted beside
    the file, which it does if its start failed.
    """
    with contextlib.suppress(OSError, ValueError):
        _end(int(pidfile.read_text()) if pid is None else pid, pidfile, patience)
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed(mounted):
        if pidfile.parent in Path(place).parents:
            _try("umount", "--lazy", place)


def _end(pid: int, pidfile: Path, patience: float) -> None:
    def gone() -> bool:
        try:
            return str(pidfile).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return True

    for number in (signal.SIGTERM, signal.SIGKILL):
        if gone():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        until(gone, timeout=patience, interval=0.05)


def _listed(*words: str) -> list[str]:
    try:
        return [one["name"] for one in json.loads(run([*words, "--json"], timeout=120).text)]
    except (ArmvmError, ValueError):
        return []


def _domains(prefix: str) -> list[str]:
    with contextlib.suppress(ArmvmError):
        names = run([*_VIRSH, "list", "--all", "--name"], timeout=120).text.split()
        return [name for name in names if name.startswith(prefix)]
    return []


def _try(*words: str) -> None:
    with contextlib.suppress(ArmvmError):
        run(list(words), timeout=600)
