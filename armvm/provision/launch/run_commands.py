"""Commands in a temporary machine: through a clone's channel, or by ssh."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Protocol, TypeVar

from armvm.base import process
from armvm.base.progress import Progress
from armvm.guest.agents.ssh_script import run_line
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance
from armvm.provision.access import channel_command, channel_stream
from armvm.provision.access.channel_command import Command
from armvm.provision.access.ssh import Endpoint, connected, ssh_command

T = TypeVar("T")
#: Functions that receive the command's standard output and standard error as they arrive.
Outputs = tuple[Callable[[bytes], object], Callable[[bytes], object]]
Feed = Callable[[IO[bytes]], object]
Drain = Callable[[IO[bytes]], T]


class Commands(Protocol):
    """Runs commands in a machine as its user."""

    name: str

    def run(
        self,
        command: Sequence[str],
        variables: Sequence[str],
        *,
        directory: str | None,
        outputs: Outputs | None,
    ) -> int:
        """Run a command (a login shell if empty) in *directory* or the user's home.

        Returns its exit code: 128 + n if signal n ended it. The call returns when the command ends,
        even if a background process still holds its outputs. Without *outputs*, the command uses
        the caller's terminal.
        """

    def stream(
        self, words: Sequence[str], feed: Feed, drain: Drain[T], *, expected: int | None = None
    ) -> T:
        """Run a command: *feed* writes its input, *drain* reads its output. Return its result.

        A command with *expected* bytes of output changes nothing, and may run twice; see
        `channel_stream.stream`. Raises CommandFailed if the command fails.
        """


@contextmanager
def commands_of(machine: Handle, progress: Progress, *, share: bool) -> Iterator[Commands]:
    """Yield the quickest way to run commands in a running machine.

    Tells *progress* why a clone's channel cannot be used. With *share*, ssh uses one connection for
    all commands.
    """
    way = channel_command.way(machine)
    if way.usable:
        yield ByChannel(machine, progress)
        return
    if way.reason is not None:
        progress.say(f"{way.reason}: using ssh, which takes longer")
    with connected(machine, share=share) as where:
        yield BySsh(machine.instance, where)


class ByChannel:
    """Commands through a clone's channel."""

    def __init__(self, machine: Handle, progress: Progress) -> None:
        self.name = machine.name
        self._machine, self._progress = machine, progress

    def run(
        self,
        command: Sequence[str],
        variables: Sequence[str],
        *,
        directory: str | None,
        outputs: Outputs | None,
    ) -> int:
        """Run a command; see `Commands`."""
        wanted = Command(
            words=guest_words(command, []),
            user=self._machine.record.user,
            directory=directory or "",
            variables=dict(one.split("=", 1) for one in variables),
        )
        stdin = sys.stdin.fileno()
        if outputs is None:
            return channel_command.on_terminal(self._machine, wanted, stdin=stdin, stdout=1)
        stdout, stderr = outputs
        return channel_command.execute(
            self._machine,
            wanted,
            feed=channel_command.feed_from(stdin),
            stdout=stdout,
            stderr=stderr,
        )

    def stream(
        self, words: Sequence[str], feed: Feed, drain: Drain[T], *, expected: int | None = None
    ) -> T:
        """Run a command; see `Commands`."""
        wanted = Command(words=words, user=self._machine.record.user)
        return channel_stream.stream(
            *(self._machine, wanted, feed, drain, self._progress),
            only_reads=expected is not None,
            expected=lambda _output: expected or 0,
        )


class BySsh:
    """Commands by ssh."""

    def __init__(self, instance: Instance, where: Endpoint) -> None:
        self.name = instance.name
        self._instance, self._where = instance, where

    def run(
        self,
        command: Sequence[str],
        variables: Sequence[str],
        *,
        directory: str | None,
        outputs: Outputs | None,
    ) -> int:
        """Run a command; see `Commands`. The code is 255 if ssh failed."""
        plain = not (command or variables or directory or outputs)
        words = [] if plain else guest_words(command, variables)
        return run_in(self._instance, self._where, words, directory=directory, outputs=outputs)

    def stream(
        self, words: Sequence[str], feed: Feed, drain: Drain[T], *, expected: int | None = None
    ) -> T:
        """Run a command; see `Commands`."""
        del expected
        line = shlex.join(words)
        return process.stream(
            ssh_command(self._instance, self._where, [line], batch=True), feed, drain
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
    mark = f"armvm-{os.urandom(16).hex()}"
    line = run_line(words, directory=directory, mark=mark)
    return process.relay(ssh_command(instance, where, [line]), mark, outputs)
