"""Slow or hung? A guest's pulse: whether it writes to its console, and what its vCPUs do.

Neither tells alone. A kernel that unpacks is silent and busy; a service that waits for the network
is silent and idle; systemd counts the seconds of a job that hangs, which is no silence.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from armvm.base.progress import duration_text
from armvm.guest.boot.failures import Finding
from armvm.guest.boot.serial import Stage, clean

#: Shares of one CPU below which a guest is idle, and above which it works. An idle emulated guest
#: takes 0.002 (measured), and 0.12 beside one that boots (a bootcmd that sleeps); one that works
#: and shares its host with others may get a third of a CPU.
IDLE, BUSY = 0.05, 0.25
#: systemd's moving line: "[ ***  ] A start job is running for X (41s / no limit)", and with
#: status_unit_format=name "Job X/start running (41s / no limit)".
_JOB = re.compile(
    r"\[[ *]{2,12}\] ?(?:\(\d+ of \d+\) )?"
    r"(?:A (?:start|stop) job is running for|Job) ([^\n]{1,160}?)(?: running)? "
    r"\(([^()/\n]{1,30}) / ([^()\n]{1,30})\)"
)
_SUSPENDED = "paused"


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """A machine at a moment: libvirt's state, why where it matters, and CPU seconds until then.

    ``cpu`` counts what the vCPUs ran and what they waited for the host's CPUs; None if unknown.
    """

    state: str
    reason: str | None = None
    cpu: float | None = None


class Pulse:
    """Looks at one machine again and again, and says when something seems wrong."""

    def __init__(self, name: str, *, silence: float) -> None:
        """Begin; *silence* is how many seconds without a word are worth one."""
        self._name, self._silence = name, silence
        self._text: str | None = None
        self._heard = 0.0
        self._samples: deque[tuple[float, float]] = deque()

    def feel(self, at: float, stage: Stage, log: str, vitals: Vitals) -> Finding | None:
        """Return what seems wrong at second *at*, given the (cleaned) serial log; None if nothing.

        Seconds are those of any clock that only goes forward.
        """
        text = _JOB.sub("", log)
        if text != self._text or vitals.state == _SUSPENDED:
            self._text, self._heard = text, at
            self._samples.clear()
        if vitals.state == _SUSPENDED:
            return _suspended(self._name, vitals.reason)
        if vitals.cpu is not None:
            self._samples.append((at, vitals.cpu))
            # The share is that of the last seconds: one that worked first may be idle now.
            while len(self._samples) > 2 and at - self._samples[1][0] >= self._silence:
                self._samples.popleft()
        if at - self._heard < self._silence:
            return None
        job = _last_job(log)
        if job is not None:
            return _waits_for(self._name, *job)
        return _silent(self._name, stage, at - self._heard, self._share())

    def _share(self) -> float | None:
        """Return how many CPUs the guest has wanted of late; None where nobody knows."""
        if len(self._samples) < 2:
            return None
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first else None


def _last_job(log: str) -> tuple[str, str, str] | None:
    """Return what systemd said last that it waits for, since when, and its limit."""
    end = log[-4000:]
    found = list(_JOB.finditer(end))
    if not found or end[found[-1].end() :].strip():
        return None
    what, since, limit = (clean(part.encode()) for part in found[-1].groups())
    return what, since.strip(), limit.strip()


def _suspended(name: str, reason: str | None) -> Finding:
    if reason == "ioerror":
        return Finding(
            key="paused-ioerror",
            what="QEMU has stopped its CPUs, since its disk gives errors",
            advice=f"make room on the host (df -h), then: armvm resume {name}",
        )
    return Finding(
        key="paused",
        what="it is suspended: its CPUs stand still",
        advice=f"armvm resume {name}   lets it go on",
    )


def _waits_for(name: str, what: str, since: str, limit: str) -> Finding:
    return Finding(
        key=f"job {what}",
        what=f"systemd in it waits for '{what}', for {since} now (limit: {limit})",
        advice=f"it hangs there, or that takes long: 'armvm logs {name}' shows what came before",
    )


def _silent(name: str, stage: Stage, seconds: float, share: float | None) -> Finding:
    quiet = f"it has written nothing for {duration_text(seconds)}"
    look = f"'armvm console {name}' shows it"
    if share is None:
        return Finding(key="silent", what=quiet, advice=f"slow or hung: {look}")
    if share >= BUSY:
        return Finding(
            key="busy",
            what=f"{quiet}, but its vCPUs work ({share:.1f} CPUs): it is slow, or in a loop",
            advice=f"give it time; a loop does not end, and then {look}",
        )
    if share >= IDLE:
        return Finding(
            key="slow",
            what=f"{quiet}, and its vCPUs do a little ({share:.2f} CPUs): it is slow, or waits",
            advice=f"it may go on by itself; if not, {_waiting_at(stage)}; {look}",
        )
    return Finding(
        key="idle",
        what=f"{quiet}, and its vCPUs are idle: it does not compute, it waits, or hangs",
        advice=f"{_waiting_at(stage)}; {look}",
    )


def _waiting_at(stage: Stage) -> str:
    if stage.order < Stage.KERNEL.order:
        return "its firmware or boot loader waits for a key, or for a device to boot from"
    if stage.order < Stage.SYSTEMD.order:
        return "its kernel waits for a device, or speaks to another console (console=ttyAMA0)"
    if stage.order < Stage.SSH.order:
        return "a service or a command of your user-data waits: for the network, a mount, a sleep"
    return "a command of your user-data waits (armvm exec, or ssh, and ps show which)"
