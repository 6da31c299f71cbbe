"""Report where the time of a machine's boot went, from the guest's data and the host's.

The guest cannot report the time before its kernel. The host can if armvm waited for this boot:
`armvm.provision.monitor.boot_history` has the time at which QEMU started.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base.errors import DomainError, MissingCapability, NotFound, NotReady, PermissionDenied
from armvm.base.progress import Progress
from armvm.base.result import Doc, Seconds
from armvm.guest.boot import serial
from armvm.guest.boot.report import SCRIPT, Account, read_account
from armvm.guest.boot.report import Span as Span  # re-exported for commands that print a report
from armvm.guest.boot.serial import Stage
from armvm.guest.boot.serial_report import read_serial
from armvm.host.agent import agent
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance
from armvm.provision.monitor import boot_history
from armvm.provision.monitor.boot_history import LearntBoot
from armvm.provision.monitor.boot_svg import picture

#: Seconds for the guest's answer under KVM; an emulated guest gets ten times that. On a host with
#: other guests, an answer took more than two minutes.
_PATIENCE = 60.0
#: Maximum difference in seconds between the host's and the guest's time of the kernel's start.
_SAME_BOOT = 20.0
#: If the guest's kernel started this many seconds before the clone was made, the boot is the
#: golden's.
_BEFORE = 5.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where the time of a machine's latest boot went."""

    machine: Annotated[str, Doc("The machine.")]
    origin: Annotated[
        str,
        Doc(
            "Time zero: QEMU's start, or the start of the guest's kernel if armvm did not wait "
            "for this boot.",
            enum=["start", "kernel"],
        ),
    ]
    kernel_started: Annotated[
        str | None,
        Doc("When the guest's kernel started, by its clock, in UTC; null: from the serial log."),
    ]
    seconds: Annotated[Seconds, Doc("The end of the last span.")]
    golden: Annotated[
        str | None, Doc("The golden whose boot this is, for a clone that did not boot itself.")
    ]
    clone_seconds: Annotated[
        float | None, Doc("How long making the clone took; null: not a clone, or not known here.")
    ]
    sources: Annotated[
        tuple[
            Annotated[str, Doc("A source.", enum=["guest agent", "serial log", "this host"])], ...
        ],
        Doc("The sources of the times.", minItems=1),
    ]
    notes: Annotated[tuple[str, ...], Doc("Notes on how to read the report.")]
    spans: Annotated[tuple[Span, ...], Doc("The steps of the boot, sorted by start.", minItems=1)]

    @property
    def title(self) -> str:
        """A summary of the report in one line."""
        whose = self.machine if self.golden is None else f"{self.golden}, golden of {self.machine}"
        since = "QEMU's start" if self.origin == "start" else "its kernel's start"
        return f"boot of {whose}: {self.seconds:.1f} s since {since}"

    def rounded(self) -> Report:
        """Return the report as ``--json`` prints it, with seconds rounded to milliseconds."""
        return replace(
            self,
            seconds=round(self.seconds, 3),
            clone_seconds=None if self.clone_seconds is None else round(self.clone_seconds, 3),
            spans=tuple(
                replace(one, start=round(one.start, 3), seconds=round(one.seconds, 3))
                for one in self.spans
            ),
        )


def shown_spans(report: Report, top: int) -> list[Span]:
    """Return all stages and marks, and the *top* longest units and modules, in order."""
    longest = sorted(report.spans, key=lambda span: -span.seconds)
    kept = {"unit": top, "module": top}
    picked = [
        span
        for kind in ("stage", "mark", "unit", "module")
        for span in [one for one in longest if one.kind == kind][: kept.get(kind)]
    ]
    return [span for span in report.spans if span in picked]


def write_picture(report: Report, spans: list[Span], path: Path) -> None:
    """Draw *spans* into an SVG file. Raises NotFound, PermissionDenied."""
    if not path.parent.is_dir():
        raise NotFound(f"directory {path.parent} not found")
    try:
        path.write_bytes(picture(report.title, spans, report.seconds))
    except OSError as error:
        raise PermissionDenied(f"cannot write {path}", detail=str(error)) from error


def boot_report(machine: Handle, progress: Progress) -> Report:
    """Return the report of a running machine's latest boot.

    Raises DomainError if the machine is not running, NotReady if its agent takes too long, or if
    neither the agent nor the serial log has boot times yet.
    """
    name = machine.name
    if not machine.running:
        raise DomainError(f"{name} is not running", hint=f"start it first: armvm start {name}")
    account, source = _account(machine, progress)
    if not account.spans:
        raise NotReady(
            f"the boot times of {name} are not available yet",
            hint=f"wait until it has booted: armvm wait {name}",
        )
    return make_report(
        machine.instance, account, source, boot_history.boot_of(machine.instance.uuid)
    )


def _account(machine: Handle, progress: Progress) -> tuple[Account, str]:
    """Return the boot times from the guest agent, or from the serial log if no agent answers."""
    try:
        with progress.task(f"reading the boot times of {machine.name}"):
            agent.ensure_answers(machine.domain)
            timeout = _PATIENCE * machine.patience
            text = agent.output(machine.domain, ["/bin/sh", "-c", SCRIPT], timeout=timeout)
        return read_account(text), "guest agent"
    except (DomainError, MissingCapability, NotReady):
        return read_serial(serial.clean(machine.log_tail())), "serial log"


def make_report(
    instance: Instance, account: Account, source: str, learnt: LearntBoot | None
) -> Report:
    """Return a report that combines the guest's times with the host's."""
    golden = clone_seconds = None
    sources, notes, spans, shift = [source], list(account.notes), list(account.spans), 0.0
    begun, made = account.kernel_at, boot_history.seconds_of(instance.record.created)
    if instance.record.golden and begun is not None and made and begun < made - _BEFORE:
        golden = instance.record.golden
        if learnt is not None and Stage.KERNEL not in learnt.stages:
            clone_seconds = learnt.stages[Stage.READY]
        notes.append(
            f"{instance.name} did not boot itself: it resumed from the golden {golden}, and this "
            "is the golden's boot"
        )
    elif begun is not None and learnt is not None and _same(begun, learnt):
        shift = max(begun - learnt.at, 0.0)
        sources.append("this host")
        spans += _seen_by_host(learnt, shift, spans)
    elif not any(span.start < 0 for span in spans):
        notes.append(
            "the time before the kernel is unknown: no armvm command waited for this boot, as "
            "armvm start does"
        )
    moved = [replace(span, start=span.start + shift) for span in spans]
    moved.sort(key=lambda span: (span.start, -span.seconds))
    return Report(
        machine=instance.name,
        origin="start" if shift else "kernel",
        kernel_started=None if begun is None else _iso(begun),
        seconds=max(span.end for span in moved),
        golden=golden,
        clone_seconds=clone_seconds,
        sources=tuple(sources),
        notes=tuple(notes),
        spans=tuple(moved),
    )


def _same(begun: float, learnt: LearntBoot) -> bool:
    """Return whether the host's record and the guest's data are of the same boot."""
    kernel = learnt.stages.get(Stage.KERNEL)
    return kernel is not None and abs(learnt.at + kernel - begun) < _SAME_BOOT


def _seen_by_host(learnt: LearntBoot, shift: float, told: list[Span]) -> list[Span]:
    """Return the spans that only the host knows, in seconds since the kernel's start."""
    found = []
    if shift and not any(span.start < 0 for span in told):
        found.append(Span(kind="stage", name="firmware", start=-shift, seconds=shift))
    for stage, name in ((Stage.SSH, "ssh answers"), (Stage.READY, "ready")):
        if stage in learnt.stages:
            at = learnt.stages[stage] - shift
            found.append(Span(kind="mark", name=name, start=at, seconds=0.0))
    return found


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
