"""A machine that exists for one command: made, used, removed, whatever happens in between."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Sequence

from armvm import process
from armvm.errors import ArmvmError, ConfigError
from armvm.host.golden import Golden
from armvm.host.instance import Instance, find_domain
from armvm.progress import Progress
from armvm.provision.create import Where
from armvm.provision.launch import decide, launch
from armvm.provision.mount import Carried, Mount, fetch, send
from armvm.provision.ssh import Endpoint, reach, ssh_command
from armvm.provision.temporary import remove, sweep
from armvm.provision.warm import Warm
from armvm.spec.machine import Machine
from armvm.spec.names import shown

_PREFIX = "run-"
_GOLDEN_HINT = "from a golden it takes seconds: armvm golden create ci, then armvm run --from ci"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


def fresh_name() -> str:
    """Return a name for a throw-away machine."""
    return f"{_PREFIX}{secrets.token_hex(4)}"


def check_environment(variables: Sequence[str]) -> list[str]:
    """Return ``K=V`` settings as they are. Raises ConfigError for what is none."""
    for one in variables:
        if not _VARIABLE.fullmatch(one) or "\0" in one:
            raise ConfigError(f"{shown(one)} sets no variable", hint="write it like CC=gcc")
    return list(variables)


def run(
    where: Where,
    machine: Machine,
    golden: Golden | None,
    *,
    command: Sequence[str],
    variables: Sequence[str],
    mounts: Sequence[Mount] = (),
    terminal: bool,
    keep: bool,
    wish: Warm,
    timeout: float | None,
    progress: Progress,
) -> int:
    """Make *machine*, run *command* in it (a login shell where it is empty), remove it.

    *mounts* are copied there first, and what was changed in them back; the command runs in the
    first one's directory. Returns the command's exit code; 255 is ssh's own. *terminal* gives it
    a terminal. With *keep*, a machine that was made stays.
    """
    connection = where.connection
    sweep(connection, progress, _PREFIX)
    plan = decide(where, machine, progress, golden)
    # This process's mark stays on the machine: should we be killed, the next run removes it.
    try:
        created = launch(
            where,
            plan,
            start=True,
            wait=True,
            timeout=timeout,
            progress=progress,
            wish=wish,
            disposable=not keep,
        )
        if not created.instance.record.golden and not wish.cold:
            progress.say(f"that was a cold boot; {_GOLDEN_HINT}")
        domain = find_domain(connection, machine.name)
        endpoint = reach(domain, created.instance)
        carried = [send(created.instance, endpoint, mount, progress) for mount in mounts]
        words = remote_command(command, variables, mounts[0].guest if mounts else None)
        code = process.passthrough(
            ssh_command(created.instance, endpoint, words, terminal=terminal)
        )
        for one in carried:
            _fetch(created.instance, endpoint, one, code, progress)
        return code
    finally:
        if not keep:
            remove(connection, machine.name, uuid=plan.identity.uuid)


def _fetch(
    instance: Instance, where: Endpoint, carried: Carried, code: int, progress: Progress
) -> None:
    """Write back a directory's changes. After a command that failed, its exit code counts."""
    try:
        fetch(instance, where, carried, progress)
    except ArmvmError as error:
        if code == 0:
            raise
        progress.warn(f"the changes in {carried.mount.directory} were lost: {error.message}")


def remote_command(
    command: Sequence[str], variables: Sequence[str], directory: str | None = None
) -> list[str]:
    """Return what ssh is to hand to the guest's shell; empty for a plain login.

    *directory* is where the command is to run; without it, that is the user's home.

    ssh joins its words with spaces and the guest's shell reads them again: they are quoted, so
    that the command gets its arguments as they were given here.
    """
    if not command and not variables and directory is None:
        return []
    words = list(command) or ["sh", "-c", 'exec "$SHELL" -l']
    line = shlex.join(["env", *variables, *words] if variables else words)
    return [line if directory is None else f"cd -- {shlex.quote(directory)} && {line}"]
