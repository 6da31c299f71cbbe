"""How long a boot takes on this host: learnt from the boots that were waited for before.

Kept in one small file in the user's state directory; it holds what can be lost. What is in it is
believed only where it makes sense, and a file that cannot be read, or written, is no error.
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
from statistics import median
from typing import Any

from armvm.base.paths import private_dir, state_dir, write_atomic
from armvm.base.poll import until
from armvm.base.progress import duration_text
from armvm.guest.boot.serial import Stage
from armvm.host.domain.instance import Instance

#: Boots remembered of one kind, kinds remembered, and bytes of the file that are read.
BOOTS, KINDS, SIZE = 5, 64, 1 << 20
#: Seconds after its making in which a machine's boot counts as its first, which takes longer.
FIRST = 180.0
#: The longest boot that is believed, in seconds.
_LONGEST = 24 * 3600.0
#: How much slower or quicker than before a boot may be taken to be, by its first stages.
_PACE = (0.5, 4.0)
#: Seconds that another process may keep the file locked.
_PATIENCE = 1.0


@dataclass(frozen=True, kw_only=True)
class LearntBoot:
    """A boot that was waited for from its start: when (Unix time), whose, each stage's second."""

    at: float
    uuid: str
    stages: Mapping[Stage, float]


def kind_of(instance: Instance, now: float | None = None) -> str:
    """Return what makes two boots alike: image, accelerator, vCPUs, ``--fast``, first or later."""
    record = instance.record
    image = record.image.get("digest") or record.image.get("reference") or "unknown image"
    made = seconds_of(record.created)
    young = made is not None and (now or time.time()) - made < FIRST
    first = "first" if young else "later"
    fast = "fast" if record.fast else "plain"
    return f"{image} {instance.accelerator} {instance.cpus} {fast} {first}"


def seconds_of(created: str) -> float | None:
    """Return a record's ``created`` in Unix time; None for what is no time."""
    try:
        return float(calendar.timegm(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


class Outlook:
    """When a boot that is under way may be expected to end, by those before it."""

    def __init__(self, boots: list[LearntBoot]) -> None:
        self._boots = boots

    def text(self, seen: Mapping[Stage, float], now: float) -> str | None:
        """Return the outlook in words, given each stage's second and that of *now*.

        None while nothing was learnt.
        """
        if not self._boots:
            return None
        usual = median(boot.stages[Stage.READY] for boot in self._boots)
        left = self._left(seen, now)
        if left is None or left < 0.5:
            return f"longer than the usual {duration_text(usual)}"
        step = 5 if left > 20 else 1
        return f"about {duration_text(math.ceil(left / step) * step)} left"

    def _left(self, seen: Mapping[Stage, float], now: float) -> float | None:
        """Return the seconds until it is ready; None or less than 0 where it should be by now.

        From the stage it has reached, it takes as long as it did before; slower or quicker, by
        how the stages until then compare.
        """
        stage = max(seen, key=lambda one: one.order)
        reached = [boot for boot in self._boots if stage in boot.stages]
        if not reached:
            return None
        remaining = median(boot.stages[Stage.READY] - boot.stages[stage] for boot in reached)
        before = median(boot.stages[stage] for boot in reached)
        # Only a boot that was seen from its start has a pace.
        pace = seen[stage] / before if before > 1 and seen[stage] > 1 else 1.0
        return remaining * min(max(pace, _PACE[0]), _PACE[1]) - (now - seen[stage])


def recall(kind: str) -> list[LearntBoot]:
    """Return the boots of a kind that are remembered, the latest last."""
    return [boot for one in _read(_file()).get(kind, []) if (boot := _boot(one)) is not None]


def boot_of(uuid: str) -> LearntBoot | None:
    """Return a machine's latest boot that is remembered."""
    every = (_boot(one) for boots in _read(_file()).values() for one in boots)
    mine = [boot for boot in every if boot is not None and boot.uuid == uuid]
    return max(mine, key=lambda boot: boot.at, default=None)


def learn(kind: str, boot: LearntBoot) -> None:
    """Remember a boot; the oldest are forgotten. What cannot be written is not."""
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
    """Hold a lock against other processes. Raises OSError when one keeps it for too long."""
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
            late=lambda: TimeoutError(f"another process keeps {path}"),
        )
        yield


def _read(file: Path) -> dict[str, list[Any]]:
    """Return what the file holds, by kind; nothing where it makes no sense."""
    try:
        with file.open("rb") as opened:
            boots = json.loads(opened.read(SIZE))["boots"]
        return {kind: one for kind, one in boots.items() if isinstance(one, list)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _boot(entry: Any) -> LearntBoot | None:
    """Return a boot as it was written; None for anything that is none."""
    try:
        stages = {Stage(name): float(at) for name, at in entry["stages"].items()}
        boot = LearntBoot(at=float(entry["at"]), uuid=str(entry["uuid"]), stages=stages)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    times = [stages[stage] for stage in sorted(stages, key=lambda one: one.order)]
    sensible = all(0 <= at <= _LONGEST for at in times) and times == sorted(times)
    return boot if sensible and stages.get(Stage.READY, 0) > 0 and boot.at > 0 else None
