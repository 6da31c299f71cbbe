"""Waiting for a guest, honestly: probes say how far it is, and time runs out with an account.

The probes are handed in (provision makes them from what host can do); this module knows
no libvirt. Clock and sleep are handed in as well.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from armvm.base.errors import NotReady
from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.guest.boot.failures import Finding
from armvm.guest.boot.serial import Stage, clean, tail

#: Seconds between two rounds of probes.
INTERVAL = 0.5
#: Seconds that a fatal trouble is given to pass: a kernel that panics may be set to boot again.
GRACE = 20.0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One sign of life: which stage it proves, and what to look at when it never comes.

    ``check`` returns the furthest stage it sees now, or None while it sees nothing. It may
    raise: a guest that has stopped need not be waited for.
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
    """How cloud-init ended: its errors, empty when all went well."""

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

    *timeout* is in seconds. *suspect* is asked what seems wrong, at each second since the wait
    began and the stage reached; it is told to the user once. *outlook* says when it may end, by
    the stages' seconds and that of now.

    Raises NotReady when the time runs out, or a fatal trouble lasts, with the stage reached, what
    is wrong (else the hint of the first probe that saw nothing), and the serial log's tail.
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
    """What seems wrong with a guest, told once each, and whether there is hope."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress
        self._told: set[str] = set()
        self._since = 0.0
        self.now: Finding | None = None

    def hear(self, found: Finding | None, at: float) -> None:
        """Take in what is suspected at second *at*."""
        if found is not None and (self.now is None or found.key != self.now.key):
            self._since = at
        if found is not None and found.key not in self._told:
            self._told.add(found.key)
            self._progress.warn(f"{self._name}: {found.what}; {found.advice}")
        self.now = found

    def lost(self, at: float) -> bool:
        """Tell whether a fatal trouble has lasted for GRACE seconds."""
        return self.now is not None and self.now.fatal and at - self._since >= GRACE


def _note(seen: dict[Stage, float], stage: Stage, at: float) -> None:
    """Record a stage, and the earlier ones that passed between two looks."""
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
        message = f"{name} gets no further; it got as far as: {furthest.value}"
    else:
        message = f"{name} was not ready within {timeout:g} s; it got as far as: {furthest.value}"
    hint = missing.hint if found is None else found.advice
    return NotReady(
        message if found is None else f"{message}; {found.what}",
        detail="the end of its serial log:\n" + (tail(log()) or "(nothing was written to it)"),
        hint=hint,
    )


def answers_ssh(host: str, port: int, timeout: float = 5.0) -> bool:
    """Tell whether an ssh server speaks at an address.

    A connection alone proves nothing: QEMU's user networking accepts it before the guest does.
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
    """Tell whether an ssh server's first words begin *data*."""
    return data.startswith(b"SSH-2.0-")


def is_up(host: str, timeout: float) -> bool:
    """Tell whether a machine has its address already, without costing it anything.

    Its kernel refuses a connection to the port that nobody serves (discard, RFC 863); a
    connection to ssh's would start a process there.
    """
    try:
        socket.create_connection((host, 9), timeout=timeout).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def read_result(text: str) -> CloudInitResult:
    """Return what cloud-init's ``/run/cloud-init/result.json`` says.

    The file appears when cloud-init has finished: ``{"v1": {"datasource": …, "errors": […]}}``.
    A file that cannot be read counts as an error of its own.
    """
    try:
        errors = json.loads(text)["v1"]["errors"]
        # The guest's words end on the user's terminal: no escape sequences.
        return CloudInitResult(
            errors=tuple(clean(str(one).encode(errors="replace")) for one in errors)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return CloudInitResult(errors=(f"result.json cannot be read: {text[:200]!a}",))
