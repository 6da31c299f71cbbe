"""``boot-report``: shows the times of a boot as bars or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.base.printable import printable
from armvm.cli.context import check_file, open_host, print_json, progress_for
from armvm.cli.options import Connect, Json, OptionalName, Quiet
from armvm.settings.user_path import given_path

if TYPE_CHECKING:
    from armvm.provision.monitor.boot_report import Report, Span

#: The colour of each kind of span.
_STYLES = {"stage": "cyan", "unit": "green", "module": "blue", "mark": "magenta"}
#: Maximum width of a name, in columns.
_NAME = 44


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(
        "boot-report",
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm boot-report\n\n  armvm boot-report arm64-01 --svg boot.svg",
    )(boot_report)


def boot_report(
    name: OptionalName = None,
    connect: Connect = None,
    svg: Annotated[
        Path | None,
        typer.Option(
            "--svg", metavar="FILE", help="Write an SVG picture; replaces FILE.", parser=given_path
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            "--top",
            metavar="N",
            min=0,
            help="Number of systemd units and of cloud-init modules to show, the slowest first; "
            "--json has all. Default: 10.",
            show_default=False,
        ),
    ] = 10,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show how long each part of a machine's boot took: firmware, kernel, systemd, cloud-init.

    The guest agent provides the times; without it, only the stages in the serial log are shown.
    The time before the kernel is shown if armvm waited for this boot. For a clone that has not
    rebooted, the report shows the golden's boot and how long cloning took. A star marks units on
    the critical path.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.monitor.boot_report import boot_report as ask
    from armvm.provision.monitor.boot_report import shown_spans, write_picture

    check_file(svg)
    report = ask(pick(open_host(connect), name), progress_for(quiet))
    spans = shown_spans(report, top)
    if svg is not None:
        write_picture(report, spans, svg)
    if json:
        print_json(report.rounded())
    elif svg is not None:
        print(f"{svg}: {report.seconds:.1f} s, {len(spans)} lines")
    else:
        _print(report, spans)


def _print(report: Report, spans: list[Span]) -> None:
    """Print a line and a bar for each span."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    print(report.title, flush=True)
    label = min(max(len(_label(span)) for span in spans), _NAME)
    room = max(console.width - label - 22, 20)
    first = min(0.0, *(span.start for span in spans))
    for span in spans:
        before, length = _bar(span, first, report.seconds - first, room)
        took = "" if span.kind == "mark" else f"{span.seconds:7.2f} s"
        line = Text(f"{_label(span)[:label]:<{label}} {span.start:8.2f}{took:>10}  {' ' * before}")
        line.append("◆" if span.kind == "mark" else "█" * length, style=_STYLES[span.kind])
        console.print(line)
    if report.clone_seconds is not None:
        print(f"cloning took {report.clone_seconds:.1f} s")
    for note in report.notes:
        print(f"note: {printable(note)}")


def _label(span: Span) -> str:
    indent = "" if span.kind in ("stage", "mark") else "  "
    return f"{indent}{printable(span.name)}{' *' if span.critical else ''}"


def _bar(span: Span, first: float, total: float, room: int) -> tuple[int, int]:
    """Return the columns before a bar and its own, at least one and within *room*."""
    scale = room / total if total > 0 else 0.0
    before = min(int((span.start - first) * scale), room - 1)
    return before, min(max(round(span.seconds * scale), 1), room - before)
