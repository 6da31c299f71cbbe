"""Use a machine's shared ssh connection at once: without libvirt, whose modules take longer to load
than a command takes in the guest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from armvm.base import process
from armvm.base.errors import UsageError
from armvm.guest.agents.ssh_script import FAILED, shell_line
from armvm.host.default_uri import default_uri
from armvm.provision.machine import shared_connection


def quick_login(name: str, command: Sequence[str]) -> tuple[int, str | None] | None:
    """Run ssh on the terminal; return its exit code and a hint, as `login` does.

    None if there is no connection that works and has a session left. Nothing was run then.
    """
    try:
        uri, _ = default_uri(os.environ)
    except UsageError:  # ARMVM_ON names a cloud
        return None
    found = shared_connection.recall(uri, name)
    if found is None:
        return None
    path, line = found
    with shared_connection.session(path) as free:
        if not free:
            return None
        words = ["--", shell_line(" ".join(command))] if command else []
        code = process.passthrough([*line, *words], interruptible=True)
    return code, _advice(name) if code == FAILED else None


def _advice(name: str) -> str | None:
    """Return a hint if no ssh server answers any more."""
    from armvm.base.errors import ArmvmError
    from armvm.provision.access.ssh import answers, endpoint, no_answer
    from armvm.provision.connect import connect
    from armvm.provision.machine.pick import pick

    try:
        machine = pick(connect(None), name)
        where = endpoint(machine)
        return None if where is not None and answers(where) else no_answer(machine)
    except ArmvmError:
        return None
