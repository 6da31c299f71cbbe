"""Wait for a guest: probes report its boot stage, and a timeout explains what happened.

The caller passes in the probes (provision makes them from what host can do), clock and sleep;
this module does not import libvirt.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armvm.base.errors import CommandFailed, NotReady
from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.guest.boot.serial import Stage, clean, tail, trouble

if TYPE_CHECKING:
    from armvm.guest.boot.failures import Finding

#: Seconds between two rounds of probes.
INTERVAL = 0.5
#: Seconds that a fatal problem has to pass: a kernel that panics may be set to reboot.
GRACE = 20.0
#: cloud-init's result; the file appears when the last stage has finished.
RESULT_FILE = "/run/cloud-init/result.json"
#: Seconds between two checks by ssh: each costs an emulated guest a second of work.
SSH_INTERVAL = 5.0
#: Seconds from cloud-init's final message on the console until its result file exists.
LAST_WORDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A readiness check: which stage it proves, and a hint for when it never succeeds.

    ``check`` returns the furthest stage it sees now, or None. It may raise, to end the wait for
    a guest that has stopped.
    """

    name: str
    hint: str
    proves: Stage
    check: Callable[[], Stage | None]


@dataclass(frozen=True, kw_only=True)
class Boot:
    """A finished wait: when each stage was first seen, in seconds since the wait began."""

    seen: dict[Stage, float]

    @property
    def seconds(self) -> float:
        """How long it took until the guest was ready."""
        return self.seen[Stage.READY]


@dataclass(frozen=True, kw_only=True)
class CloudInitResult:
    """How cloud-init ended: its errors, empty if there were none."""

    errors: tuple[str, ...]


def wait(
    name: str,
    probes: Sequence[Probe],
    *,
    timeout: float,
    progress: Progress,
    log: Callable[[], str],
    suspect: Callable[[float, Stage], Finding | None] = lambda _now, _stage: None,
    outlook: Callable[[Mapping[Stage, float], float], str | None] = lambda _seen, _now: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Boot:
    """Wait until a probe proves Stage.READY.

    *timeout* is in seconds. *suspect* returns the suspected problem, given the seconds since the
    wait began and the stage reached; each problem is reported once. *outlook* estimates the end,
    given the stages' seconds and the current second.

    Raises NotReady when the time runs out, or a fatal problem lasts, with the stage reached, the
    problem (else the hint of the first probe that saw nothing), and the serial log's tail.
    """
    start = clock()
    seen: dict[Stage, float] = {Stage.STARTED: 0.0}
    doubts = _Doubts(name, progress)
    with progress.task(f"{name}: starting") as task:

        def ready() -> Boot | None:
            for probe in probes:
                stage = probe.check()
                if stage is not None:
                    _note(seen, stage, clock() - start)
            furthest, now = max(seen, key=lambda stage: stage.order), clock() - start
            if furthest is Stage.READY:
                return Boot(seen=seen)
            task.update(text=furthest.value, outlook=outlook(seen, now))
            doubts.hear(suspect(now, furthest), now)
            if doubts.lost(now):
                raise late()
            return None

        def late() -> NotReady:
            return _not_ready(name, probes, seen, timeout, log, doubts, clock() - start)

        return until(ready, timeout=timeout, interval=INTERVAL, late=late, clock=clock, sleep=sleep)


class _Doubts:
    """Reports each suspected problem of a guest once, and tracks the fatal ones."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress
        self._told: set[str] = set()
        self._since = 0.0
        self.now: Finding | None = None

    def hear(self, found: Finding | None, at: float) -> None:
        """Record the problem suspected at second *at*."""
        if found is not None and (self.now is None or found.key != self.now.key):
            self._since = at
        if found is not None and found.key not in self._told:
            self._told.add(found.key)
            self._progress.warn(f"{self._name}: {found.what}; {found.advice}")
        self.now = found

    def lost(self, at: float) -> bool:
        """Return whether a fatal problem has lasted for GRACE seconds."""
        return self.now is not None and self.now.fatal and at - self._since >= GRACE


def _note(seen: dict[Stage, float], stage: Stage, at: float) -> None:
    """Record a stage, and the earlier ones that passed between two rounds."""
    for earlier in Stage:
        if earlier.order <= stage.order:
            seen.setdefault(earlier, at)


def _not_ready(
    name: str,
    probes: Sequence[Probe],
    seen: dict[Stage, float],
    timeout: float,
    log: Callable[[], str],
    doubts: _Doubts,
    now: float,
) -> NotReady:
    furthest = max(seen, key=lambda stage: stage.order)
    missing = next((probe for probe in probes if probe.proves.order > furthest.order), probes[-1])
    found = doubts.now
    if found is not None and doubts.lost(now) and now < timeout:
        message = f"{name} stopped booting; last stage reached: {furthest.value}"
    else:
        message = f"timed out after {timeout:g} s: {name} is not ready"
        message += f"; last stage reached: {furthest.value}"
    hint = missing.hint if found is None else found.advice
    return NotReady(
        message if found is None else f"{message}; {found.what}",
        detail="the end of its serial log:\n" + (tail(log()) or "(the log is empty)"),
        hint=hint,
    )


def answers_ssh(host: str, port: int, timeout: float = 5.0) -> bool:
    """Return whether an ssh server answers at an address.

    A connection alone is not enough: QEMU's user networking accepts it before the guest does.
    Source of the banner: RFC 4253, section 4.2.
    """
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as connection,
            connection.makefile("rb") as answer,
        ):
            return is_banner(answer.read(8))
    except OSError:
        return False


def is_banner(data: bytes) -> bool:
    """Return whether *data* begins with an ssh server's banner."""
    return data.startswith(b"SSH-2.0-")


def is_up(host: str, timeout: float) -> bool:
    """Return whether a machine has its address already, at no cost to the machine.

    Its kernel refuses a connection to a port without a server (discard, RFC 863); a connection to
    the ssh port would start a process there.
    """
    try:
        socket.create_connection((host, 9), timeout=timeout).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def read_result(text: str) -> CloudInitResult:
    """Return the result in cloud-init's ``/run/cloud-init/result.json``.

    The file appears when cloud-init has finished: ``{"v1": {"datasource": …, "errors": […]}}``.
    A file that cannot be parsed counts as an error.
    """
    try:
        errors = json.loads(text)["v1"]["errors"]
        # The errors are shown on the user's terminal, so they must not hold escape sequences.
        return CloudInitResult(
            errors=tuple(clean(str(one).encode(errors="replace")) for one in errors)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return CloudInitResult(errors=(f"result.json cannot be parsed: {text[:200]!a}",))


def assert_ended_well(
    name: str, result: CloudInitResult | None, log: Callable[[], str], *, login: str
) -> None:
    """Raise CommandFailed if cloud-init reported errors, with the log lines that explain them.

    *login* is the command that logs in to the machine.
    """
    if result is None or not result.errors:
        return
    lines = [*result.errors, *(line for line in [trouble(log())] if line)]
    raise CommandFailed(
        f"{name} is running, but cloud-init failed",
        detail="\n".join(lines),
        hint=f"read the full log: {login} -- sudo less /var/log/cloud-init-output.log",
    )
