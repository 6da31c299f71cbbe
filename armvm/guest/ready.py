"""Waiting for a guest, honestly: probes say how far it is, and time runs out with an account.

The probes are handed in (provision makes them from what host can do); this module knows
no libvirt. Clock and sleep are handed in as well.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from armvm.errors import NotReady
from armvm.guest.serial import Stage, clean, tail
from armvm.progress import Progress

#: Seconds between two rounds of probes.
INTERVAL = 0.5


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
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Boot:
    """Wait until a probe proves Stage.READY.

    *timeout* is in seconds. Raises NotReady when it runs out, with the stage reached, the hint
    of the first probe that saw nothing, and the serial log's tail.
    """
    start = clock()
    seen: dict[Stage, float] = {Stage.STARTED: 0.0}
    with progress.task(f"{name}: starting") as task:
        while True:
            for probe in probes:
                stage = probe.check()
                if stage is not None:
                    _note(seen, stage, clock() - start)
            furthest = max(seen, key=lambda stage: stage.order)
            if furthest is Stage.READY:
                return Boot(seen=seen)
            task.update(text=furthest.value)
            if clock() - start >= timeout:
                raise _not_ready(name, probes, seen, timeout, log)
            sleep(INTERVAL)


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
) -> NotReady:
    furthest = max(seen, key=lambda stage: stage.order)
    missing = next((probe for probe in probes if probe.proves.order > furthest.order), probes[-1])
    return NotReady(
        f"{name} was not ready within {timeout:g} s; it got as far as: {furthest.value}",
        detail="the end of its serial log:\n" + (tail(log()) or "(nothing was written to it)"),
        hint=f"{missing.hint}. It is still running: 'armvm wait {name}' goes on waiting, "
        f"'armvm console {name}' shows it, 'armvm delete {name}' removes it",
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
            return answer.read(8) == b"SSH-2.0-"
    except OSError:
        return False


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
