"""A guest's own account of its boot: asked of systemd and cloud-init.

All times are seconds since the guest's kernel began. Sources: org.freedesktop.systemd1(5) for the
timestamps (microseconds of CLOCK_MONOTONIC; 0 where there is none; firmware and loader count
back from the kernel), ``cloud-init analyze dump`` for the events (Unix time).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from armvm.base.result import Doc, Seconds
from armvm.guest.boot.serial import clean

#: What is asked of the guest, as root, in one go. A guest without cloud-init leaves that part out.
SCRIPT = r"""
export LC_ALL=C
echo '== clock'; cut -d' ' -f1 /proc/uptime; date +%s.%N
echo '== manager'; systemctl show | grep -E '^[A-Za-z]+TimestampMonotonic='
echo '== units'
systemctl show '*' -p Id -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic \
  -p InactiveEnterTimestampMonotonic
echo '== chain'; systemd-analyze critical-chain --no-pager 2>/dev/null
echo '== cloud'; cloud-init analyze dump 2>/dev/null
echo '== end'
"""

#: cloud-init's stages: how its events call them, and how people do.
CLOUD_STAGES = {
    "init-local": "cloud-init local",
    "init-network": "cloud-init network",
    "modules-config": "cloud-init config",
    "modules-final": "cloud-init final",
}
#: The longest boot that is believed, in seconds.
_LONGEST = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Span:
    """Something that took time."""

    kind: Annotated[
        str,
        Doc(
            "A stage of the boot, a systemd unit, a cloud-init module, or a mark: a moment without "
            "length.",
            enum=["stage", "unit", "module", "mark"],
        ),
    ]
    name: Annotated[str, Doc("Its name.")]
    start: Annotated[float, Doc("Seconds from the origin; negative before it.")]
    seconds: Annotated[Seconds, Doc("How long it took.")]
    critical: Annotated[bool, Doc("Whether systemd's boot had to wait for this unit.")] = False

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.seconds


@dataclass(frozen=True, kw_only=True)
class Account:
    """A boot as the guest tells it. ``kernel_at`` is when its kernel began, in Unix time."""

    spans: tuple[Span, ...]
    kernel_at: float | None = None
    notes: tuple[str, ...] = field(default=())


def read_account(text: str) -> Account:
    """Return the account in the output of `SCRIPT`. What makes no sense in it is left out."""
    parts = _sections(text)
    manager = _fields(parts.get("manager", ""))
    kernel_at = _kernel_at(parts.get("clock", ""))
    notes = []
    stages = list(_stages(manager))
    cloud = list(_cloud(parts.get("cloud", ""), kernel_at))
    finished = _at(manager, "FinishTimestampMonotonic")
    end = max([finished, *(span.end for span in cloud)])
    if not finished:
        notes.append("systemd has not finished its boot yet")
        end = math.inf
    # In the C locale the tree's branches are of "-", with which one unit's name begins.
    chain = clean(parts.get("chain", "").encode())
    critical = set(re.findall(r"(-\.mount|\w[\w@:.\\-]*\.[a-z]+) @", chain))
    # What was started later is no part of the boot: logins, timers.
    units = [one for one in _units(parts.get("units", ""), critical) if one.start <= end]
    if not cloud:
        notes.append("cloud-init has nothing to tell")
    return Account(spans=(*stages, *cloud, *units), kernel_at=kernel_at, notes=tuple(notes))


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^== (\w+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _fields(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _at(fields: Mapping[str, str], key: str) -> float:
    """Return a timestamp in seconds; 0 for what is none, or none of a boot."""
    text = fields.get(key, "")
    seconds = int(text) / 1e6 if re.fullmatch(r"[0-9]{1,17}", text) else 0.0
    return seconds if seconds <= _LONGEST else 0.0


def _kernel_at(clock: str) -> float | None:
    try:
        up, now = map(float, clock.split())
    except ValueError:
        return None
    return now - up if math.isfinite(now) and now > up >= 0 else None


def _stages(manager: Mapping[str, str]) -> Iterator[Span]:
    """Yield firmware and loader (counted back from the kernel), kernel, initramfs and systemd."""
    firmware = _at(manager, "FirmwareTimestampMonotonic")
    loader = _at(manager, "LoaderTimestampMonotonic")
    if firmware > loader:
        yield Span(kind="stage", name="firmware", start=-firmware, seconds=firmware - loader)
    if loader:
        yield Span(kind="stage", name="boot loader", start=-loader, seconds=loader)
    initrd = _at(manager, "InitRDTimestampMonotonic")
    user = _at(manager, "UserspaceTimestampMonotonic")
    if user:
        yield Span(kind="stage", name="kernel", start=0.0, seconds=initrd or user)
    if initrd and user > initrd:
        yield Span(kind="stage", name="initramfs", start=initrd, seconds=user - initrd)
    finish = _at(manager, "FinishTimestampMonotonic")
    if user and finish > user:
        yield Span(kind="stage", name="systemd", start=user, seconds=finish - user)


def _units(text: str, critical: set[str]) -> Iterator[Span]:
    """Yield what each unit took to become active (a one-shot: to end), as systemd-analyze blame."""
    for block in text.split("\n\n"):
        unit = _fields(block)
        start = _at(unit, "InactiveExitTimestampMonotonic")
        ends = [_at(unit, f"{what}EnterTimestampMonotonic") for what in ("Active", "Inactive")]
        end = min([one for one in ends if one >= start], default=0.0)
        name = clean(unit.get("Id", "").encode())[:120]
        if name and start and end > start:
            yield Span(
                kind="unit", name=name, start=start, seconds=end - start, critical=name in critical
            )


def _cloud(text: str, kernel_at: float | None) -> Iterator[Span]:
    """Yield cloud-init's stages, and what they are made of, of this boot."""
    begun: dict[str, float] = {}
    for event in _events(text) if kernel_at is not None else ():
        try:
            name, at = str(event["name"]), float(event["timestamp"]) - (kernel_at or 0.0)
            what = event["event_type"]
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        # The log has the earlier boots too. A clock that jumps gives no sense.
        if not 0 <= at <= _LONGEST:
            continue
        if what == "start":
            begun[name] = at
        elif what == "finish" and name in begun and begun[name] <= at:
            start = begun.pop(name)
            shown = clean(CLOUD_STAGES.get(name, name).encode(errors="replace"))[:120]
            kind = "module" if "/" in name else "stage"
            yield Span(kind=kind, name=shown, start=start, seconds=at - start)


def _events(text: str) -> Iterable[dict[str, Any]]:
    try:
        events = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [one for one in events if isinstance(one, dict)] if isinstance(events, list) else []
