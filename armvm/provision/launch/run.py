"""A machine that exists for one command: made, used, removed, whatever happens in between."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence

from armvm.base import process
from armvm.base.errors import ArmvmError, ConfigError
from armvm.base.progress import Progress
from armvm.guest.agents.ssh_script import run_line
from armvm.host.domain.golden_domain import Golden
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance, find_domain
from armvm.provision.access.ssh import Endpoint, reach, ssh_command
from armvm.provision.golden.choose import Warm
from armvm.provision.launch.launch import decide, launch
from armvm.provision.launch.run_mount import Carried, Mount, fetch, send
from armvm.provision.machine.create import Where
from armvm.provision.machine.temporary import remove, sweep
from armvm.settings.machine import Machine
from armvm.settings.names import shown

_PREFIX = "run-"
_GOLDEN_HINT = "from a golden it takes seconds: armvm golden create ci, then armvm run --from ci"
#: Take what the command writes to standard output and standard error, as it comes.
Outputs = tuple[Callable[[bytes], object], Callable[[bytes], object]]
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
    outputs: Outputs | None,
    keep: bool,
    wish: Warm,
    timeout: float | None,
    progress: Progress,
) -> int:
    """Make *machine*, run *command* in it (a login shell where it is empty), remove it.

    *mounts* are copied there first, and what was changed in them back; the command runs in the
    first one's directory. Returns what `run_in` does; without *outputs*, the command has a
    terminal. With *keep*, a machine that was made stays.
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
        endpoint = reach(Handle(connection=connection, domain=domain, instance=created.instance))
        carried = [send(created.instance, endpoint, mount, progress) for mount in mounts]
        code = run_in(
            created.instance,
            endpoint,
            guest_words(command, variables) if command or variables or mounts or outputs else [],
            directory=mounts[0].guest if mounts else None,
            outputs=outputs,
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


def guest_words(command: Sequence[str], variables: Sequence[str]) -> list[str]:
    """Return the words to be run in the guest: the command's, or those of a login shell."""
    words = list(command) or ["sh", "-c", 'exec "$SHELL" -l']
    return ["env", *variables, *words] if variables else words


def run_in(
    instance: Instance,
    where: Endpoint,
    words: Sequence[str],
    *,
    directory: str | None = None,
    outputs: Outputs | None = None,
) -> int:
    """Run a command in a guest by ssh, in *directory* or the user's home; return its exit code.

    128 + n where signal n ended it; 255 where ssh failed (or the command gave that). The command's
    end is the call's: a process that it leaves behind, with its outputs in hand, is not waited for.
    Without *outputs*, the command has a terminal: the caller's own; without *words*, it is a login.
    """
    if outputs is None:
        lines = [run_line(words, directory=directory)] if words else []
        argv = ssh_command(instance, where, lines, terminal=True)
        return process.passthrough(argv, interruptible=True)
    mark = f"armvm-{secrets.token_hex(16)}"
    line = run_line(words, directory=directory, mark=mark)
    return process.relay(ssh_command(instance, where, [line]), mark, outputs)
