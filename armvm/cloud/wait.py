"""Wait until a server of a cloud accepts logins: its serial log, ssh, cloud-init, a login."""

from __future__ import annotations

import time
from dataclasses import dataclass

from armvm.base.errors import ArmvmError, CommandFailed, DomainError, NotReady
from armvm.base.progress import Progress
from armvm.cloud import login
from armvm.cloud.connection import Connection
from armvm.cloud.logs import console
from armvm.cloud.server import STARTING, Server, again
from armvm.guest.boot import failures, serial
from armvm.guest.boot.failures import Finding
from armvm.guest.boot.ready import (
    LAST_WORDS,
    RESULT_FILE,
    SSH_INTERVAL,
    Boot,
    CloudInitResult,
    Probe,
    answers_ssh,
    assert_ended_well,
    read_result,
    wait,
)
from armvm.guest.boot.serial import Stage

#: Default timeout in seconds: armvm cannot know whether a cloud's hosts emulate ARM64.
TIMEOUT = 1200.0
#: Seconds between two looks at a server and its log: each is a request or two to the cloud.
LOOK = 3.0
#: Number of login attempts with armvm's key, and seconds between two.
TRIES, PAUSE = 4, 5.0
#: ssh's messages for which another attempt gives the same (sshconnect2.c, sshconnect.c).
FINAL = ("Permission denied", "Host key verification failed")


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A server that accepts logins: its address, and how many seconds each stage took."""

    server: Server
    address: str
    boot: Boot


def wait_ready(
    connection: Connection, server: Server, *, timeout: float | None, progress: Progress
) -> Ready:
    """Wait until ssh answers, cloud-init has finished, and a login succeeds.

    Raises NotReady after *timeout* seconds, DomainError if the server stops, CommandFailed if
    cloud-init failed or the server refuses armvm's key.
    """
    name, on = server.name, connection.cloud.name
    watch = _Watch(connection, server)
    try:
        boot = wait(
            name,
            watch.probes(),
            timeout=TIMEOUT if timeout is None else timeout,
            progress=progress,
            log=lambda: watch.log,
            suspect=lambda _now, _stage: watch.suspected(),
        )
    except NotReady as error:
        error.hint = (
            f"{error.hint}. {name} is still running; keep waiting: armvm wait {name} --on {on}, "
            f"read its log: armvm logs {name} --on {on}, or remove it: "
            f"armvm delete {name} --on {on}"
        )
        raise
    assert_ended_well(name, watch.result, lambda: watch.log, login=f"armvm ssh {name} --on {on}")
    address = watch.server.address
    if address is None:
        raise DomainError(f"{name} lost its address")
    if not watch.logged_in:
        _assert_lets_in(watch.server, address, on, watch.log, progress)
    return Ready(server=watch.server, address=address, boot=boot)


def _assert_lets_in(server: Server, address: str, on: str, log: str, progress: Progress) -> None:
    """Raise CommandFailed if the server refuses armvm's own key; report a refusal of others."""
    own = login.uses_own_key(server)
    said = None
    for number in range(TRIES if own else 1):
        if number:
            time.sleep(PAUSE)
        said = login.log_in(server, address)
        if said is None:
            return
        if any(one in said for one in FINAL):
            break
    if own:
        raise CommandFailed(
            f"{server.name} has booted, but {server.user} cannot log in by ssh",
            detail="\n".join(line for line in (said, serial.trouble(log)) if line),
            hint=f"read its log: armvm logs {server.name} --on {on}",
        )
    progress.say(
        f"cannot log in to {server.name}: it accepts none of the keys that ssh can use here "
        "without a passphrase or password"
    )


class _Watch:
    """The state of one booting server, updated every LOOK seconds."""

    def __init__(self, connection: Connection, server: Server) -> None:
        self._connection = connection
        self._looked = self._asked = self._said = 0.0
        self._answers = False
        self.server = server
        self.log = ""
        self.result: CloudInitResult | None = None
        self.logged_in = False

    def suspected(self) -> Finding | None:
        """Return the problem that the log names, or None."""
        return failures.named(self.server.name, self.log)

    def probes(self) -> list[Probe]:
        """Return the probes in boot order."""
        on = self._connection.cloud.name
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
                hint="ssh does not answer: allow TCP port 22 in the security group of the server, "
                f"and check that this computer reaches its address: armvm ip {self.server.name} "
                f"--on {on}",
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

    def _serial(self) -> Stage | None:
        if time.monotonic() - self._looked >= LOOK:
            self.server = again(self._connection, self.server)
            if self.server.status not in STARTING:
                raise DomainError(
                    f"{self.server.name} stopped while armvm waited for it: {self.server.state}",
                    detail=self.server.fault or serial.tail(self.log) or None,
                    hint=f"start it: armvm start {self.server.name} "
                    f"--on {self._connection.cloud.name}",
                )
            self._read_log()
            address = self.server.address
            if not self._answers and address is not None:
                self._answers = answers_ssh(address, login.PORT)
            self._looked = time.monotonic()
        return serial.stage_of(self.log)

    def _read_log(self) -> None:
        try:
            self.log = serial.clean(console(self._connection, self.server))
        except ArmvmError:  # it does not exist yet, or the cloud does not show logs
            return

    def _ssh(self) -> Stage | None:
        return Stage.SSH if self._answers else None

    def _finished(self) -> Stage | None:
        address = self.server.address
        if not self._answers or address is None:
            return None
        if time.monotonic() - self._asked > SSH_INTERVAL:
            text = login.output(self.server, address, f"cat {RESULT_FILE}")
            self._asked = time.monotonic()
            self.logged_in = text is not None
            if text:
                self.result = read_result(text)
                return Stage.READY
        # Without a usable key, only the console shows the end.
        if not serial.cloud_init_finished(self.log):
            return None
        self._said = self._said or time.monotonic()
        return Stage.READY if time.monotonic() - self._said > LAST_WORDS else None
