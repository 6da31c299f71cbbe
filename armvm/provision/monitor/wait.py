"""Wait until a machine accepts logins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armvm.base.errors import CommandFailed, DomainError, NotReady
from armvm.base.progress import Progress
from armvm.guest.boot import serial
from armvm.guest.boot.ready import (
    LAST_WORDS,
    RESULT_FILE,
    SSH_INTERVAL,
    Boot,
    CloudInitResult,
    Probe,
    assert_ended_well,
    read_result,
    wait,
)
from armvm.guest.boot.serial import Stage
from armvm.host.agent import agent
from armvm.host.connection import Connection
from armvm.host.domain import cpu_activity
from armvm.host.domain.handle import Handle, find_machine
from armvm.host.domain.instance import Instance
from armvm.host.facts import Accelerator
from armvm.provision.access.jump import need_jump, other_way
from armvm.provision.access.ssh import (
    Endpoint,
    answers,
    assert_has_way,
    endpoint,
    restore_forward,
    run_in_guest,
)
from armvm.provision.monitor.login_check import assert_lets_in

if TYPE_CHECKING:
    from armvm.guest.boot.failures import Finding

#: Default timeout in seconds under KVM; emulated guests get ten times that.
BASE_TIMEOUT = 120.0
#: Seconds without console output after which armvm reports it, for KVM and emulation. cloud-init's
#: stages and module loading print nothing for up to 20 s in an emulated guest.
SILENCE = {Accelerator.KVM: 15.0, Accelerator.TCG: 30.0}
#: Seconds between two checks for problems.
LOOK = 2.0


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A machine that accepts logins: its ssh endpoint, and how many seconds each stage took."""

    instance: Instance
    endpoint: Endpoint
    boot: Boot


def default_timeout(instance: Instance) -> float:
    """Return how long to wait for a machine, in seconds."""
    return BASE_TIMEOUT * Accelerator(instance.accelerator).patience


def wait_ready(
    connection: Connection,
    name: str,
    *,
    timeout: float | None,
    progress: Progress,
    stays: bool = True,
) -> Ready:
    """Wait until ssh answers, cloud-init has finished, and a login succeeds.

    *stays* is False if the machine is temporary: the caller removes it, so the hint does not
    suggest commands that need it, and no shared ssh connection is kept.

    Raises NotReady after *timeout* seconds or if the guest hangs, DomainError if the machine stops,
    CommandFailed if cloud-init failed or the machine refuses armvm's key, MissingCapability if this
    host cannot reach the machine.
    """
    machine = find_machine(connection, name)
    assert_has_way(machine)
    need_jump(machine.uri, name)  # otherwise the wait would only end at the timeout
    if other := other_way(machine.uri):
        progress.warn(other)
    if machine.running:
        machine = restore_forward(machine)
    instance = machine.instance
    watch = _Watch(machine)
    from armvm.provision.monitor import (
        boot_history,  # most clones of goldens do not need it
    )

    kind = boot_history.kind_of(instance)
    # Only a boot that armvm watches from its start is recorded.
    from_start = watch.stage().order <= Stage.FIRMWARE.order
    begun = time.time()
    with next_step(name, stays=stays):
        boot = wait(
            name,
            watch.probes(),
            timeout=default_timeout(instance) if timeout is None else timeout,
            progress=progress,
            log=watch.log,
            suspect=watch.suspect,
            outlook=boot_history.Outlook(boot_history.recall(kind)).text,
        )
        if from_start:
            boot_history.learn(
                kind, boot_history.LearntBoot(at=begun, uuid=instance.uuid, stages=boot.seen)
            )
        assert_ended_well(name, watch.result, watch.log, login=f"armvm ssh {name}")
        if watch.endpoint is None:
            raise DomainError(f"{name} lost its address")
        if not watch.logged_in:
            assert_lets_in(machine, watch.endpoint, log=watch.log, progress=progress, share=stays)
        return Ready(instance=machine.again().instance, endpoint=watch.endpoint, boot=boot)


def wait_up(
    connection: Connection,
    name: str,
    *,
    timeout: float | None,
    progress: Progress,
    stays: bool = True,
) -> Ready | None:
    """Wait until a machine is ready; one without a seed: until it shows a login prompt.

    Returns None for a machine without a seed, because armvm cannot log in there. Raises what
    `wait_ready` does.
    """
    machine = find_machine(connection, name)
    if machine.instance.seed is not None:
        return wait_ready(connection, name, timeout=timeout, progress=progress, stays=stays)
    watch = _Watch(machine)
    with next_step(name, stays=stays):
        wait(
            name,
            [watch.prompt()],
            timeout=default_timeout(machine.instance) if timeout is None else timeout,
            progress=progress,
            log=watch.log,
            suspect=watch.suspect,
        )
    return None


@contextmanager
def next_step(name: str, *, stays: bool) -> Iterator[None]:
    """Add hints to errors: commands for a machine that is not ready, or that it was removed."""
    try:
        yield
    except (NotReady, DomainError, CommandFailed) as error:
        if not stays:
            error.hint = f"{name} was removed; to keep a machine that fails, use armvm create"
        elif isinstance(error, NotReady):
            error.hint = (
                f"{error.hint}. {name} is still running; keep waiting: armvm wait {name}, "
                f"watch it: armvm console {name}, or remove it: armvm delete {name}"
            )
        raise


class _Watch:
    """The state of one booting machine, updated at each check."""

    def __init__(self, machine: Handle) -> None:
        from armvm.guest.boot.liveness import Pulse  # a clone is up at once

        self._machine = machine
        self._asked = self._said = self._looked = 0.0
        silence = SILENCE[Accelerator(machine.instance.accelerator)]
        self._pulse = Pulse(machine.name, silence=silence)
        self._suspected: Finding | None = None
        self.endpoint: Endpoint | None = None
        self.result: CloudInitResult | None = None
        self.logged_in = False

    def log(self) -> str:
        """Return the end of the serial log as text."""
        return serial.clean(self._machine.log_tail())

    def stage(self) -> Stage:
        """Return the boot stage according to the serial log."""
        return serial.stage_of(self.log())

    def suspect(self, now: float, stage: Stage) -> Finding | None:
        """Return a suspected problem, checked every LOOK seconds; fatal log messages come first."""
        from armvm.guest.boot import failures
        from armvm.guest.boot.liveness import Vitals

        if now - self._looked >= LOOK:
            self._looked = now
            log = self.log()
            state, reason, cpu = cpu_activity.look(self._machine.domain)
            seen = Vitals(state=state, reason=reason, cpu=cpu)
            felt = self._pulse.feel(now, stage, log, seen)
            told = failures.named(self._machine.name, log)
            self._suspected = told if told is not None and told.fatal else felt or told
        return self._suspected

    def probes(self) -> list[Probe]:
        """Return the probes in boot order."""
        return [
            Probe(
                name="serial log",
                hint="no output on the serial console: check that the image is for ARM64 and has "
                "a boot loader",
                proves=Stage.CLOUD_INIT,
                check=self._serial,
            ),
            Probe(
                name="ssh",
                hint="ssh does not answer: the address or the ssh server is missing",
                proves=Stage.SSH,
                check=self._ssh,
            ),
            Probe(
                name="cloud-init",
                hint="ssh answers, but cloud-init has not finished",
                proves=Stage.READY,
                check=self._finished,
            ),
        ]

    def prompt(self) -> Probe:
        """Return the probe for a machine without a seed."""

        def check() -> Stage | None:
            stage = self._serial()
            return Stage.READY if serial.has_login_prompt(self.log()) else stage

        return Probe(
            name="login prompt",
            hint="no login prompt on the serial console: enable a getty on ttyAMA0 in the guest",
            proves=Stage.READY,
            check=check,
        )

    def _serial(self) -> Stage | None:
        if not self._machine.domain.isActive():
            raise DomainError(
                f"{self._machine.name} stopped while armvm waited for it",
                detail=serial.tail(self.log()) or None,
                hint=f"start it and watch it: armvm start {self._machine.name}; "
                f"armvm console {self._machine.name}",
            )
        return self.stage()

    def _ssh(self) -> Stage | None:
        if self.endpoint is None:
            found = endpoint(self._machine)
            if found is not None and answers(found):
                self.endpoint = found
        return None if self.endpoint is None else Stage.SSH

    def _finished(self) -> Stage | None:
        if self.endpoint is None:
            return None
        text = None
        if agent.connected(self._machine.domain):
            text = agent.read_file(self._machine.domain, RESULT_FILE)
        elif time.monotonic() - self._asked > SSH_INTERVAL:
            text = run_in_guest(self._machine.instance, self.endpoint, f"cat {RESULT_FILE}")
            self._asked = time.monotonic()
            self.logged_in = text is not None
        if text:
            self.result = read_result(text)
            return Stage.READY
        # Without an agent or a usable key, only the console shows the end. Its final message comes
        # before the result file.
        if not serial.cloud_init_finished(self.log()):
            return None
        self._said = self._said or time.monotonic()
        return Stage.READY if time.monotonic() - self._said > LAST_WORDS else None
