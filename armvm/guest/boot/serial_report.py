"""What a serial log tells of a boot, where no guest agent does: the stages, and no more.

The kernel's lines bear their second, and cloud-init says at each stage how long the guest is up:
``Cloud-init v. 22.4.2 running 'init' at Sat, 28 Nov 2026 12:50:01 +0000. Up 31.24 seconds.``
"""

from __future__ import annotations

import re

from armvm.guest.boot.report import CLOUD_STAGES, Account, Span
from armvm.guest.boot.serial import latest_boot

_SYSTEMD = re.compile(r"^\[ *(\d{1,5}\.\d+)\] systemd\[1\]: ", re.M)
_CLOUD = re.compile(
    r"Cloud-init v\.? \S+ (?:running '([\w:-]{1,40})'|finished) at [^\n]{0,200}Up (\d{1,5}\.\d+) s"
)
#: How cloud-init calls its stages there.
_NAMES = {
    "init-local": "init-local",
    "init": "init-network",
    "modules:config": "modules-config",
    "modules:final": "modules-final",
}


def read_serial(log: str) -> Account:
    """Return what a (cleaned) serial log tells of its latest boot.

    A stage of cloud-init ends where the next begins: more is not told.
    """
    latest = latest_boot(log)
    marks: list[tuple[str, float]] = []
    systemd = _SYSTEMD.search(latest)
    if systemd:
        marks += [("kernel", 0.0), ("systemd", float(systemd[1]))]
    told = [(match[1], float(match[2])) for match in _CLOUD.finditer(latest)]
    end = max([second for _, second in told], default=0.0)
    stages = [
        (CLOUD_STAGES.get(_NAMES.get(what, what), f"cloud-init {what}"), second)
        for what, second in told
        if what
    ]
    spans = [
        Span(kind="stage", name=name, start=start, seconds=following - start)
        for group in (marks, stages)
        for (name, start), (_, following) in zip(group, [*group, ("", end)][1:], strict=True)
        if following > start
    ]
    note = "no guest agent answers: the serial log tells the stages, each until the next begins"
    return Account(spans=tuple(spans), notes=(note,))
