"""Estimate how long a boot takes on this host, from earlier boots that armvm waited for.

The times are in one small file in the user's state directory, which may be deleted. armvm ignores
implausible entries, and a file that cannot be read or written is not an error.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armvm.base.paths import private_dir, state_dir, write_atomic
from armvm.base.poll import until
from armvm.base.progress import duration_text
from armvm.guest.boot.serial import Stage
from armvm.host.domain.instance import Instance

#: Maximum number of boots of one kind, of kinds, and of bytes to read from the file.
BOOTS, KINDS, SIZE = 5, 64, 1 << 20
#: A boot within this many seconds of the machine's creation is its first, which takes longer.
FIRST = 180.0
#: The longest plausible boot, in seconds.
_LONGEST = 24 * 3600.0
#: Limits of the pace that the first stages suggest: half to four times the earlier duration.
_PACE = (0.5, 4.0)
#: Seconds to wait for another process to unlock the file.
_PATIENCE = 1.0


@dataclass(frozen=True, kw_only=True)
class LearntBoot:
    """A boot that armvm watched from its start: Unix time, machine, and second of each stage."""

    at: float
    uuid: str
    stages: Mapping[Stage, float]


def kind_of(instance: Instance, now: float | None = None) -> str:
    """Return the kind of a boot: image, accelerator, vCPUs, ``--fast``, first or later."""
    record = instance.record
    image = record.image.get("digest") or record.image.get("reference") or "unknown image"
    made = seconds_of(record.created)
    young = made is not None and (now or time.time()) - made < FIRST
    first = "first" if young else "later"
    fast = "fast" if record.fast else "plain"
    return f"{image} {instance.accelerator} {instance.cpus} {fast} {first}"


def seconds_of(created: str) -> float | None:
    """Return a record's ``created`` in Unix time, or None if it is not a valid time."""
    try:
        return float(calendar.timegm(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


class Outlook:
    """An estimate of when a boot will end, from earlier boots."""

    def __init__(self, boots: list[LearntBoot]) -> None:
        self._boots = boots

    def text(self, seen: Mapping[Stage, float], now: float) -> str | None:
        """Return the estimate as text, given the second of each stage and of *now*.

        Returns None without earlier boots.
        """
        from statistics import median  # only a boot needs it

        if not self._boots:
            return None
        usual = median(boot.stages[Stage.READY] for boot in self._boots)
        left = self._left(seen, now)
        if left is None or left < 0.5:
            return f"longer than the usual {duration_text(usual)}"
        step = 5 if left > 20 else 1
        return f"about {duration_text(math.ceil(left / step) * step)} left"

    def _left(self, seen: Mapping[Stage, float], now: float) -> float | None:
        """Return the seconds until the machine is ready; negative if it is late, None if unknown.

        This is the earlier time from the reached stage on, scaled by the pace of this boot so far.
        """
        from statistics import median

        stage = max(seen, key=lambda one: one.order)
        reached = [boot for boot in self._boots if stage in boot.stages]
        if not reached:
            return None
        remaining = median(boot.stages[Stage.READY] - boot.stages[stage] for boot in reached)
        before = median(boot.stages[stage] for boot in reached)
        # The pace is known only for a boot that was watched from its start.
        pace = seen[stage] / before if before > 1 and seen[stage] > 1 else 1.0
        return remaining * min(max(pace, _PACE[0]), _PACE[1]) - (now - seen[stage])


def recall(kind: str) -> list[LearntBoot]:
    """Return the recorded boots of a kind, the latest last."""
    return [boot for one in _read(_file()).get(kind, []) if (boot := _boot(one)) is not None]


def boot_of(uuid: str) -> LearntBoot | None:
    """Return a machine's latest recorded boot, or None."""
    every = (_boot(one) for boots in _read(_file()).values() for one in boots)
    mine = [boot for boot in every if boot is not None and boot.uuid == uuid]
    return max(mine, key=lambda boot: boot.at, default=None)


def learn(kind: str, boot: LearntBoot) -> None:
    """Record a boot and drop the oldest ones; ignore a file that cannot be written."""
    with contextlib.suppress(OSError):
        file = private_dir(state_dir()) / _file().name
        with _locked(file.with_suffix(".lock")):
            known = _read(file)
            stages = {stage.value: round(at, 2) for stage, at in boot.stages.items()}
            entry = {"at": round(boot.at), "uuid": boot.uuid, "stages": stages}
            boots = [*known.pop(kind, []), entry][-BOOTS:]
            kept = dict([*known.items(), (kind, boots)][-KINDS:])  # the latest kind is last
            write_atomic(file, json.dumps({"boots": kept}).encode())


def _file() -> Path:
    return state_dir() / "boots.json"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock against other processes. Raises OSError if one keeps it too long."""
    with path.open("a") as file:

        def locked() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        until(
            locked,
            timeout=_PATIENCE,
            interval=0.02,
            late=lambda: TimeoutError(f"another process holds the lock {path}"),
        )
        yield


def _read(file: Path) -> dict[str, list[Any]]:
    """Return the file's entries by kind; empty if the file is invalid."""
    try:
        with file.open("rb") as opened:
            boots = json.loads(opened.read(SIZE))["boots"]
        return {kind: one for kind, one in boots.items() if isinstance(one, list)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _boot(entry: Any) -> LearntBoot | None:
    """Return a boot from its entry in the file, or None if the entry is invalid."""
    try:
        stages = {Stage(name): float(at) for name, at in entry["stages"].items()}
        boot = LearntBoot(at=float(entry["at"]), uuid=str(entry["uuid"]), stages=stages)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    times = [stages[stage] for stage in sorted(stages, key=lambda one: one.order)]
    sensible = all(0 <= at <= _LONGEST for at in times) and times == sorted(times)
    return boot if sensible and stages.get(Stage.READY, 0) > 0 and boot.at > 0 else None
