"""Slow or hung? Checks whether a guest writes to its console, and how busy its vCPUs are.

Neither is enough alone. A kernel that unpacks is silent and busy; a service that waits for the
network is silent and idle; systemd counts the seconds of a job that hangs, so it is not silent.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from armvm.base.progress import duration_text
from armvm.guest.boot.failures import Finding
from armvm.guest.boot.serial import Stage, clean

#: Shares of one CPU below which a guest is idle, and above which it is busy. An idle emulated guest
#: takes 0.002 (measured), and 0.12 beside one that boots (a bootcmd that sleeps); a busy one that
#: shares its host with others may get a third of a CPU.
IDLE, BUSY = 0.05, 0.25
#: systemd's progress line: "[ ***  ] A start job is running for X (41s / no limit)", and with
#: status_unit_format=name "Job X/start running (41s / no limit)".
_JOB = re.compile(
    r"\[[ *]{2,12}\] ?(?:\(\d+ of \d+\) )?"
    r"(?:A (?:start|stop) job is running for|Job) ([^\n]{1,160}?)(?: running)? "
    r"\(([^()/\n]{1,30}) / ([^()\n]{1,30})\)"
)
_SUSPENDED = "paused"


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """A sample of a machine: libvirt's state and its reason, and CPU seconds so far.

    ``cpu`` is the vCPUs' run time plus the time they waited for host CPUs; None if unknown.
    """

    state: str
    reason: str | None = None
    cpu: float | None = None


class Pulse:
    """Samples one machine repeatedly, and reports suspected problems."""

    def __init__(self, name: str, *, silence: float) -> None:
        """Begin; *silence* is after how many seconds without output a guest counts as silent."""
        self._name, self._silence = name, silence
        self._text: str | None = None
        self._heard = 0.0
        self._samples: deque[tuple[float, float]] = deque()

    def feel(self, at: float, stage: Stage, log: str, vitals: Vitals) -> Finding | None:
        """Return the problem suspected at second *at* from the (cleaned) serial log, or None.

        Seconds are those of any monotonic clock.
        """
        text = _JOB.sub("", log)
        if text != self._text or vitals.state == _SUSPENDED:
            self._text, self._heard = text, at
            self._samples.clear()
        if vitals.state == _SUSPENDED:
            return _suspended(self._name, vitals.reason)
        if vitals.cpu is not None:
            self._samples.append((at, vitals.cpu))
            # Only the last seconds count: a guest that was busy at first may be idle now.
            while len(self._samples) > 2 and at - self._samples[1][0] >= self._silence:
                self._samples.popleft()
        if at - self._heard < self._silence:
            return None
        job = _last_job(log)
        if job is not None:
            return _waits_for(self._name, *job)
        return _silent(self._name, stage, at - self._heard, self._share())

    def _share(self) -> float | None:
        """Return how many CPUs the guest has used or waited for lately; None if unknown."""
        if len(self._samples) < 2:
            return None
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first else None


def _last_job(log: str) -> tuple[str, str, str] | None:
    """Return the last job that systemd reported waiting for, since when, and its limit."""
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
            what="QEMU paused its CPUs because its disk reports errors",
            advice=f"make room on the host (df -h), then: armvm resume {name}",
        )
    return Finding(
        key="paused",
        what="the machine is suspended",
        advice=f"resume it: armvm resume {name}",
    )


def _waits_for(name: str, what: str, since: str, limit: str) -> Finding:
    return Finding(
        key=f"job {what}",
        what=f"systemd has been waiting for '{what}' for {since} (limit: {limit})",
        advice=f"it is slow or hung: 'armvm logs {name}' shows the output before that",
    )


def _silent(name: str, stage: Stage, seconds: float, share: float | None) -> Finding:
    quiet = f"no console output for {duration_text(seconds)}"
    look = f"check 'armvm console {name}'"
    if share is None:
        return Finding(key="silent", what=quiet, advice=f"slow or hung: {look}")
    if share >= BUSY:
        return Finding(
            key="busy",
            what=f"{quiet}, but its vCPUs are busy ({share:.1f} CPUs): slow or in a loop",
            advice=f"wait longer; if this persists, it is in a loop; {look}",
        )
    if share >= IDLE:
        return Finding(
            key="slow",
            what=f"{quiet}, and its vCPUs are mostly idle ({share:.2f} CPUs): slow or waiting",
            advice=f"it may continue on its own; if not, {_waiting_at(stage)}; {look}",
        )
    return Finding(
        key="idle",
        what=f"{quiet}, and its vCPUs are idle: waiting or hung",
        advice=f"{_waiting_at(stage)}; {look}",
    )


def _waiting_at(stage: Stage) -> str:
    if stage.order < Stage.KERNEL.order:
        return "its firmware or boot loader is waiting for a key or a boot device"
    if stage.order < Stage.SYSTEMD.order:
        return "its kernel is waiting for a device, or uses another console (console=ttyAMA0)"
    if stage.order < Stage.SSH.order:
        return "a service or a user-data command is waiting for the network, a mount or a sleep"
    return "a user-data command is waiting (to find it, run ps with armvm exec or ssh)"
