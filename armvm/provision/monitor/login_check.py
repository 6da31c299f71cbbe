"""Check that a machine accepts armvm's key, the last condition for being ready."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError, CommandFailed
from armvm.base.progress import Progress
from armvm.guest.boot import serial
from armvm.guest.ssh import options as ssh_options
from armvm.host.agent import agent
from armvm.host.connection import Domain
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance
from armvm.provision.access.ssh import (
    DENIED,
    Endpoint,
    has_own_key,
    master_command,
    open_shared,
    remember_login,
    shared_socket,
    ssh_command,
)

#: Number of login attempts, and seconds between two. An ssh server that user-data restarts refuses
#: some logins, and PAM refuses all until systemd allows them (pam_nologin).
TRIES, PAUSE = 4, 5.0
#: Seconds for one login. ssh itself gives up on a silent guest a little earlier.
TIMEOUT = 90.0
#: Run as root in the guest: checks the account and its keys, and prints cloud-init's messages.
_LOOK = r"""
home=$(getent passwd "$1" | cut -d: -f6)
[ -n "$home" ] || echo "user $1 not found in the guest"
[ -z "$home" ] || [ -s "$home/.ssh/authorized_keys" ] ||
    echo "$home/.ssh/authorized_keys is missing or empty"
grep -hE '\[(WARNING|ERROR|CRITICAL)\]|authorized|Traceback' /var/log/cloud-init.log | tail -n 8
:
"""


def assert_lets_in(
    machine: Handle,
    where: Endpoint,
    *,
    log: Callable[[], str],
    progress: Progress,
    session: bool = True,
    share: bool = True,
) -> None:
    """Log in to a machine by ssh.

    Without a *session*, ssh only authenticates and does not run a command, which takes an emulated
    guest less than half the time of a login. With *share*, the connection stays open for the
    user's commands. Raises CommandFailed, with the messages of ssh and
    cloud-init, if the machine refuses armvm's own key. If the machine has other keys, a refusal
    only prints a message, because an ssh agent elsewhere may hold them.
    """
    own = has_own_key(machine.instance)
    with progress.task(f"{machine.name}: logging in"):
        said = _refusal(machine, where, tries=TRIES if own else 1, session=session, share=share)
    if said is None:
        return
    user = machine.record.user
    if not own:
        progress.say(
            f"cannot log in to {machine.name}: it accepts none of the keys that ssh can use "
            "here without a passphrase or password"
        )
        return
    raise CommandFailed(
        f"{machine.name} has booted, but {user} cannot log in by ssh",
        detail="\n".join([said, *_account(machine.domain, user, log())]),
        hint="read its log without ssh: "
        f"armvm exec {machine.name} -- cat /var/log/cloud-init.log; "
        f"or open its console: armvm console {machine.name}",
    )


def _refusal(
    machine: Handle, where: Endpoint, *, tries: int, session: bool, share: bool
) -> str | None:
    """Return ssh's message if no login succeeds, else None."""
    said = ""
    for number in range(tries):
        if number:
            time.sleep(PAUSE)
        try:
            done = _attempt(machine, where, session=session, share=share)
        except ArmvmError as error:
            said = error.message
            continue
        if done.returncode == 0:
            return None
        words = serial.clean(done.stderr + done.stdout).strip()
        said = serial.tail(words, 5) or f"ssh failed with exit code {done.returncode}"
        if DENIED in said:
            break
    return said


def _attempt(machine: Handle, where: Endpoint, *, session: bool, share: bool) -> process.Completed:
    path = shared_socket(machine.uri, machine.instance) if share else None
    if path is not None:
        instance = machine.instance
        done = open_shared(instance, where, path, batch=True, fresh=True, timeout=TIMEOUT)
        if done is not None and done.returncode == 0 and path.exists():
            shared = replace(where, shared=path)
            remember_login(machine, shared)
            return _log_in(instance, shared) if session else done
        if done is not None and str(path) not in done.stderr.decode(errors="replace"):
            return done
        # The connection cannot be kept.
    return (_log_in if session else _authenticate)(machine.instance, where)


def _log_in(instance: Instance, where: Endpoint) -> process.Completed:
    command = ssh_command(instance, where, ["true"], batch=True)
    return process.run(command, check=False, timeout=TIMEOUT, most=process.ANSWER)


def _authenticate(instance: Instance, where: Endpoint) -> process.Completed:
    """Run ssh until the machine accepts the key; ssh then forks to the background, and is ended."""
    # Not in TMPDIR, whose path may be too long for a socket (unix(7): 108 bytes).
    with tempfile.TemporaryDirectory(prefix="armvm-", dir="/tmp") as directory:
        path = Path(directory) / "ssh"
        # Not run(): the way through a host is another process, which keeps a pipe open.
        try:
            command = master_command(instance, where, path, batch=True)
            return process.into_background(command, timeout=TIMEOUT)
        finally:  # also after a signal, which may come when ssh is in the background already
            control = ssh_options.words({"ControlPath": ssh_options.quoted(path)})
            end = ["ssh", *control, "-F", "none", "-O", "exit", where.host]
            process.run(end, check=False, timeout=TIMEOUT)


def _account(domain: Domain, user: str, log: str) -> list[str]:
    """Return lines from the guest and its console that explain a refused login."""
    lines = []
    with contextlib.suppress(ArmvmError):
        agent.ensure_answers(domain)
        told = agent.output(domain, ["/bin/sh", "-c", _LOOK, "sh", user])
        lines += serial.clean(told.encode()).splitlines()
    return [*lines, *(serial.trouble(log) or serial.keys_of(log)).splitlines()]
