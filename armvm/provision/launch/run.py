"""``armvm run``: create a machine for one command and remove it in every case."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from armvm.base.errors import ArmvmError, ConfigError
from armvm.base.progress import Progress
from armvm.host.domain.golden_domain import Golden
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import find_domain
from armvm.provision.golden import pool
from armvm.provision.golden.choose import Warm
from armvm.provision.launch.launch import Created, decide, launch
from armvm.provision.launch.run_commands import Commands, Outputs, commands_of
from armvm.provision.launch.run_mount import Carried, Mount, fetch, send
from armvm.provision.machine.create import Where
from armvm.provision.machine.delete import remove_taken, remove_temporary, sweep
from armvm.settings.machine import Machine
from armvm.settings.names import shown

_PREFIX = "run-"
_GOLDEN_HINT = "a golden starts in seconds: armvm golden create ci, then armvm run --from ci"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


def fresh_name() -> str:
    """Return a random name for a temporary machine."""
    return f"{_PREFIX}{os.urandom(4).hex()}"


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
    named: bool,
    warm: Warm,
    timeout: float | None,
    progress: Progress,
) -> int:
    """Create *machine*, run *command* in it (a login shell if empty), and remove it.

    *mounts* are copied to the guest first, and their changes are copied back at the end. The
    command runs in the directory of the first one. Returns the exit code (see `Commands`). Without
    *outputs*, the command has a terminal. With *keep*, the machine is not removed. Unless *named*,
    it may come from the golden's pool, with a name of its own.
    """
    connection = where.connection
    sweep(connection, progress, _PREFIX)
    plan = decide(where, machine, progress, golden)
    created: Created | None = None
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
            pooled=not named,
        )
        if not created.instance.record.golden and not warm.cold:
            progress.say(f"this was a cold boot; {_GOLDEN_HINT}")
        domain = find_domain(connection, created.instance.name)
        handle = Handle(connection=connection, domain=domain, instance=created.instance)
        with commands_of(handle, progress, share=bool(mounts)) as guest:
            carried = [send(guest, mount, progress) for mount in mounts]
            directory = mounts[0].guest if mounts else None
            code = guest.run(command, variables, directory=directory, outputs=outputs)
            _fetch(guest, carried, code, progress)
        return code
    finally:
        used = created.pool if created is not None else None
        if created is None:  # it may be another one, from a pool
            for taken in remove_taken(connection):
                used = taken.record.golden
            if not keep:
                remove_temporary(connection, machine.name, uuid=plan.identity.uuid)
        elif not keep:
            remove_temporary(connection, created.instance.name, uuid=created.instance.uuid)
        if used is not None:
            pool.refill(where, used, progress)


def _fetch(guest: Commands, carried: Sequence[Carried], code: int, progress: Progress) -> None:
    """Copy all directories' changes back, then raise the first error.

    If the command failed too, only warn about errors.
    """
    first: ArmvmError | None = None
    for one in carried:
        try:
            fetch(guest, one, progress)
        except ArmvmError as error:
            if code == 0 and first is None:
                first = error
                continue
            progress.warn(
                f"the guest's changes to {one.mount.directory} were lost: {error.message}"
            )
    if first is not None:
        raise first
