"""``armvm run``: create a machine for one command and remove it in every case."""

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
from armvm.provision.access.ssh import Endpoint, connected, ssh_command
from armvm.provision.golden.choose import Warm
from armvm.provision.launch.launch import decide, launch
from armvm.provision.launch.run_mount import Carried, Mount, fetch, send
from armvm.provision.machine.create import Where
from armvm.provision.machine.delete import remove_temporary, sweep
from armvm.settings.machine import Machine
from armvm.settings.names import shown

_PREFIX = "run-"
_GOLDEN_HINT = "a golden starts in seconds: armvm golden create ci, then armvm run --from ci"
#: Functions that receive the command's standard output and standard error as they arrive.
Outputs = tuple[Callable[[bytes], object], Callable[[bytes], object]]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


def fresh_name() -> str:
    """Return a random name for a temporary machine."""
    return f"{_PREFIX}{secrets.token_hex(4)}"


def check_environment(variables: Sequence[str]) -> list[str]:
    """Return the ``K=V`` variables as a list. Raises ConfigError for an invalid one."""
    for one in variables:
        if not _VARIABLE.fullmatch(one) or "\0" in one:
            raise ConfigError(
                f"invalid environment variable {shown(one)}",
                hint="use NAME=VALUE, for example CC=gcc",
            )
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
    warm: Warm,
    timeout: float | None,
    progress: Progress,
) -> int:
    """Create *machine*, run *command* in it (a login shell if empty), and remove it.

    *mounts* are copied to the guest first, and their changes are copied back at the end. The
    command runs in the directory of the first one. Returns the exit code as `run_in` does. Without
    *outputs*, the command has a terminal. With *keep*, the machine is not removed.
    """
    connection = where.connection
    sweep(connection, progress, _PREFIX)
    plan = decide(where, machine, progress, golden)
    # The machine keeps this process's mark. If we are killed, the next run removes it.
    try:
        created = launch(
            where,
            plan,
            start=True,
            wait=True,
            timeout=timeout,
            progress=progress,
            warm=warm,
            disposable=not keep,
        )
        if not created.instance.record.golden and not warm.cold:
            progress.say(f"this was a cold boot; {_GOLDEN_HINT}")
        domain = find_domain(connection, machine.name)
        handle = Handle(connection=connection, domain=domain, instance=created.instance)
        with connected(handle, share=bool(mounts)) as endpoint:
            carried = [send(created.instance, endpoint, mount, progress) for mount in mounts]
            words = guest_words(command, variables)
            code = run_in(
                created.instance,
                endpoint,
                words if command or variables or mounts or outputs else [],
                directory=mounts[0].guest if mounts else None,
                outputs=outputs,
            )
            for one in carried:
                _fetch(created.instance, endpoint, one, code, progress)
        return code
    finally:
        if not keep:
            remove_temporary(connection, machine.name, uuid=plan.identity.uuid)


def _fetch(
    instance: Instance, where: Endpoint, carried: Carried, code: int, progress: Progress
) -> None:
    """Copy a directory's changes back. If the command failed too, only warn about an error."""
    try:
        fetch(instance, where, carried, progress)
    except ArmvmError as error:
        if code == 0:
            raise
        progress.warn(
            f"the guest's changes to {carried.mount.directory} were lost: {error.message}"
        )


def guest_words(command: Sequence[str], variables: Sequence[str]) -> list[str]:
    """Return the words to run in the guest: the command, or a login shell if it is empty."""
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

    The code is 128 + n if signal n ended the command, and 255 if ssh failed (or the command
    returned 255). The call returns when the command ends, even if a background process still holds
    its outputs. Without *outputs*, the command uses the caller's terminal. Without *words*, it is
    a login.
    """
    if outputs is None:
        lines = [run_line(words, directory=directory)] if words else []
        argv = ssh_command(instance, where, lines, terminal=True)
        return process.passthrough(argv, interruptible=True)
    mark = f"armvm-{secrets.token_hex(16)}"
    line = run_line(words, directory=directory, mark=mark)
    return process.relay(ssh_command(instance, where, [line]), mark, outputs)
