"""Boot stages read from a serial log, for guests without a guest agent.

Kernel lines begin with their second, and cloud-init prints the uptime at each stage:
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
#: cloud-init's names for its stages in the log.
_NAMES = {
    "init-local": "init-local",
    "init": "init-network",
    "modules:config": "modules-config",
    "modules:final": "modules-final",
}


def read_serial(log: str) -> Account:
    """Return the report of the latest boot in a (cleaned) serial log.

    A cloud-init stage ends where the next begins: the log does not record the end.
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
    note = "no guest agent: the stages come from the serial log, each ends where the next begins"
    return Account(spans=tuple(spans), notes=(note,))
