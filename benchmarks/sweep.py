"""Remove everything that a run created, or a killed run left: all names with the prefix."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

from armvm.base.errors import ArmvmError
from armvm.base.process import run
from armvm.base.signals import shielded

#: Prefix of all machines, goldens and directories of the benchmarks.
PREFIX = "armvm-bench-"
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
        shutil.rmtree(directory, ignore_errors=True)
    return left


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
