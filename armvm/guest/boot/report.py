"""A guest's own report of its boot, from systemd and cloud-init.

All times are seconds since the guest's kernel started. Sources: org.freedesktop.systemd1(5) for
the timestamps (microseconds of CLOCK_MONOTONIC; 0 if unset; firmware and loader count back from
the kernel), ``cloud-init analyze dump`` for the events (Unix time).
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

#: Queries the guest, as root, in one run. Without cloud-init, that part stays empty.
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

#: cloud-init's stages: their names in its events, and in text.
CLOUD_STAGES = {
    "init-local": "cloud-init local",
    "init-network": "cloud-init network",
    "modules-config": "cloud-init config",
    "modules-final": "cloud-init final",
}
#: The longest plausible boot, in seconds.
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
        """The second at which it ended."""
        return self.start + self.seconds


@dataclass(frozen=True, kw_only=True)
class Account:
    """A boot as the guest reports it. ``kernel_at`` is when its kernel started, in Unix time."""

    spans: tuple[Span, ...]
    kernel_at: float | None = None
    notes: tuple[str, ...] = field(default=())


def read_account(text: str) -> Account:
    """Return the report in the output of `SCRIPT`, without invalid parts."""
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
    # In the C locale, systemd draws the tree with "-", which also begins one unit's name.
    chain = clean(parts.get("chain", "").encode())
    critical = set(re.findall(r"(-\.mount|\w[\w@:.\\-]*\.[a-z]+) @", chain))
    # Units started later, such as logins and timers, do not belong to the boot.
    units = [one for one in _units(parts.get("units", ""), critical) if one.start <= end]
    if not cloud:
        notes.append("cloud-init reported nothing")
    return Account(spans=(*stages, *cloud, *units), kernel_at=kernel_at, notes=tuple(notes))


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^== (\w+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _fields(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _at(fields: Mapping[str, str], key: str) -> float:
    """Return a timestamp in seconds; 0 if it is unset, or outside a boot."""
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
    """Yield each unit's time to become active (a one-shot: to end), as systemd-analyze blame."""
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
    """Yield this boot's cloud-init stages, and their parts."""
    begun: dict[str, float] = {}
    for event in _events(text) if kernel_at is not None else ():
        try:
            name, at = str(event["name"]), float(event["timestamp"]) - (kernel_at or 0.0)
            what = event["event_type"]
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        # The log has the earlier boots too. If the clock jumps, the times are useless.
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
