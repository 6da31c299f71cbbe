"""Run a command in a guest without network, key or ssh server.

A clone's own channel is used where there is one. Otherwise the guest agent runs the command, which
takes longer.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from armvm.base.errors import (
    CommandFailed,
    Conflict,
    DomainError,
    MissingCapability,
    NotFound,
    NotReady,
)
from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.base.result import Doc, Seconds
from armvm.base.signals import shielded
from armvm.guest.agents.command_script import NO_USER, check_guest_user, kill_command, script
from armvm.host.agent import agent
from armvm.host.agent.agent_file import GuestFile, open_file
from armvm.host.connection import Domain
from armvm.host.domain.handle import Handle
from armvm.provision.access import channel_command
from armvm.provision.access.channel_command import Command
from armvm.provision.access.exec_streams import Run, Sink, Stream
from armvm.settings.names import shown

#: Seconds for a shell in the guest to start.
START = 60.0
#: Polling interval in seconds: soon after some output, and after a while without any.
QUICK, SLOW = 0.05, 0.4
#: Seconds without output after which armvm stops reading, once the command has ended. A process
#: that the command left behind may keep the output open.
LAST_WORDS = 3.0
#: Most bytes of output for a result that has all of it.
MAX_KEPT = 64 << 20


def execute(
    machine: Handle,
    command: Sequence[str],
    *,
    user: str | None,
    timeout: float | None,
    stdin: int | None,
    stdout: Sink,
    stderr: Sink,
    progress: Progress,
) -> int:
    """Run a command in a guest, as root or *user*, and return its exit code (128 + n: signal n).

    Uses a clone's channel, or the guest agent, and tells *progress* why it falls back to that.
    Raises the errors of `by_agent` and of `channel_command.execute`.
    """
    machine.require_running()
    check_guest_user(user or "root")
    way = channel_command.way(machine)
    reason = way.reason
    if way.usable:
        wanted = Command(words=command, user=user or "root")
        try:
            return channel_command.execute(
                machine,
                wanted,
                feed=channel_command.feed_from(stdin),
                stdout=stdout,
                stderr=stderr,
                timeout=timeout,
            )
        except Conflict as error:
            reason = error.message
    if reason is not None:
        progress.say(f"{reason}: using the guest agent, which takes longer")
    return by_agent(
        machine.domain,
        command,
        user=user,
        timeout=timeout,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )


def on_terminal(
    machine: Handle,
    command: Sequence[str],
    *,
    user: str | None,
    timeout: float | None,
    stdin: int,
    stdout: int,
) -> int:
    """Run a command in a clone with a terminal; return its exit code.

    Raises MissingCapability for a machine without a channel, and `channel_command`'s errors.
    """
    machine.require_running()
    check_guest_user(user or "root")
    if not channel_command.way(machine).usable:
        raise MissingCapability(
            f"cannot give the command a terminal: {machine.name} is not a clone in its first run",
            hint=f"use armvm ssh {machine.name} or armvm console {machine.name}",
        )
    wanted = Command(words=command, user=user or "root")
    return channel_command.on_terminal(machine, wanted, stdin=stdin, stdout=stdout, timeout=timeout)


def by_agent(
    domain: Domain,
    command: Sequence[str],
    *,
    user: str | None,
    timeout: float | None,
    stdin: int | None,
    stdout: Sink,
    stderr: Sink,
) -> int:
    """Run a command through the guest agent; return its exit code (128 + n: signal n).

    *stdin* is a file descriptor; armvm sends its input as the command reads it. Output goes to
    *stdout* and *stderr* while the command runs. An error, a signal or the end of *timeout* seconds
    (CommandFailed) ends the call and the command. Raises DomainError if the agent does not answer,
    MissingCapability if it cannot run commands, ConfigError for an invalid *user*.
    """
    directory = f"/run/armvm-exec-{os.urandom(12).hex()}"
    text = script(directory, command, user)
    agent.ensure_answers(domain)
    end = None if timeout is None else time.monotonic() + timeout
    with _begun(domain, directory, text, stdout, stderr, user) as run:
        return _follow(run, stdin, end, timeout)


@contextmanager
def _begun(
    domain: Domain, directory: str, text: bytes, stdout: Sink, stderr: Sink, user: str | None
) -> Iterator[Run]:
    """Start the script and open its files; end and close them at the end of the block."""
    with shielded():  # otherwise a signal could leave the script running
        shell = agent.start_process(domain, ["/bin/sh"], stdin=text)
        status = _first(domain, shell, f"{directory}/status", user)
        run = Run(
            domain=domain,
            directory=directory,
            status=status,
            control=open_file(domain, f"{directory}/control", "r+"),
            streams=tuple(
                Stream(name=which, sink=sink, file=open_file(domain, f"{directory}/{which}.0", "r"))
                for which, sink in (("out", stdout), ("err", stderr))
            ),
        )
    try:
        yield run
    finally:
        with shielded():
            _end(run)


def _first(domain: Domain, shell: int, path: str, user: str | None) -> GuestFile:
    """Open the script's first file once it exists. Raises NotFound (the user), CommandFailed."""

    def opened() -> GuestFile | None:
        with contextlib.suppress(NotFound):
            return open_file(domain, path, "r")
        code = agent.ended(domain, shell)
        if code == NO_USER:
            raise NotFound(f"user {shown(user or 'root')} not found in {domain.name()}")
        if code is not None:
            raise CommandFailed(
                f"cannot run the command in {domain.name()}",
                hint="the guest needs a POSIX shell, mkfifo, dd, setsid and free space in /run",
            )
        return None

    return until(
        opened,
        timeout=START,
        interval=QUICK,
        late=lambda: CommandFailed(
            f"timed out after {START:g} s: no shell started in {domain.name()}"
        ),
    )


def _follow(run: Run, stdin: int | None, end: float | None, timeout: float | None) -> int:
    """Forward input and output until the command ends, and return its exit code."""
    quiet = time.monotonic()
    while True:
        busy = run.hear()
        fed = run.code is None and stdin is not None and run.feed(stdin)
        came = [run.drain(stream) for stream in run.streams]
        now = time.monotonic()
        if busy or fed or any(came):
            quiet = now
        if any(stream.lost for stream in run.streams):
            raise CommandFailed(
                f"not enough space in {run.domain.name()} for the command's output",
                hint="the output goes through files in the guest's /run: free some space there",
            )
        if run.code is not None and not any(came):
            caught_up = all(one.ended and one.ready == one.piece for one in run.streams)
            if (caught_up and not busy) or now - quiet > LAST_WORDS:
                return run.code
        elif end is not None and now > end and run.code is None:
            raise CommandFailed(
                f"timed out after {timeout:g} s: the command was stopped",
                hint="set a longer limit with --timeout",
            )
        if not (busy or fed or any(came)):
            time.sleep(QUICK if now - quiet < 1 else SLOW)


def _end(run: Run) -> None:
    """End the command if it runs, and have the script remove its files. Ignores a stopped guest."""
    with contextlib.suppress(DomainError):
        until(lambda: _has_begun(run), timeout=START, interval=QUICK)
        if run.code is None and run.pid is not None:
            with contextlib.suppress(CommandFailed, NotReady):
                agent.output(run.domain, kill_command(run.pid), timeout=START)
        run.control.write(b"close\nbye\n")
    for file in (run.status, run.control, *(stream.file for stream in run.streams)):
        file.close()


def _has_begun(run: Run) -> bool:
    if run.code is None and run.pid is None:
        run.hear()
    return run.code is not None or run.pid is not None


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """How a command in a guest ended."""

    machine: Annotated[str, Doc("The machine.")]
    command: Annotated[list[str], Doc("The command and its arguments.", minItems=1)]
    user: Annotated[str, Doc("The guest user who ran it.")]
    exit_code: Annotated[
        int,
        Doc(
            "The command's exit code, or 128 + n for signal n; also armvm's exit code.",
            minimum=0,
            maximum=255,
        ),
    ]
    stdout: Annotated[
        str, Doc("The whole standard output; U+FFFD replaces bytes that are not UTF-8.")
    ]
    stderr: Annotated[str, Doc("The whole standard error, like stdout.")]
    seconds: Annotated[Seconds, Doc("How long it took, including the transfer of its output.")]


def execute_and_keep(
    machine: Handle,
    command: Sequence[str],
    *,
    user: str | None,
    timeout: float | None,
    stdin: int | None,
    progress: Progress,
) -> ExecResult:
    """Run a command like `execute`; return its exit code, its output as text, and the seconds.

    Raises CommandFailed if the output is longer than MAX_KEPT.
    """
    begun = time.monotonic()
    parts = {"stdout": bytearray(), "stderr": bytearray()}

    def keeping(key: str) -> Sink:
        def keep(data: bytes) -> None:
            if sum(map(len, parts.values())) + len(data) > MAX_KEPT:
                raise CommandFailed(
                    f"the output is longer than {MAX_KEPT >> 20} MiB: the command was stopped",
                    hint="leave out --json: without it, output of any length is streamed",
                )
            parts[key].extend(data)

        return keep

    code = execute(
        machine,
        command,
        user=user,
        timeout=timeout,
        stdin=stdin,
        stdout=keeping("stdout"),
        stderr=keeping("stderr"),
        progress=progress,
    )
    return ExecResult(
        machine=machine.name,
        command=list(command),
        user=user or "root",
        exit_code=code,
        **{key: data.decode(errors="replace") for key, data in parts.items()},
        seconds=round(time.monotonic() - begun, 3),
    )
