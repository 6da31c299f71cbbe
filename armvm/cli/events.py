"""``events``: prints events of machines."""

from __future__ import annotations

import json as json_format
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.base.result import as_json
from armvm.cli import complete
from armvm.cli.options import Connect, seconds

if TYPE_CHECKING:
    from armvm.provision.monitor.events import Event


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm events\n\n  armvm events arm64-01 --json --count 1",
    )(events)


def events(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Machine name; may not exist yet. Default: all armvm machines.",
            autocompletion=complete.machines,
        ),
    ] = None,
    connect: Connect = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include domains that armvm did not create.")
    ] = False,
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", min=1, help="Exit after N events."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            parser=seconds(0),
            help="Exit after this time, with exit code 11 if --count was not reached.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line on standard output.")
    ] = False,
) -> None:
    """Print libvirt's events for machines, one per line, until Ctrl-C."""
    from armvm.cli.main import Interrupted
    from armvm.provision.monitor.events import connect as connect_listening
    from armvm.provision.monitor.events import describe, follow
    from armvm.settings.names import check_machine_name, shown

    def tell(event: Event) -> None:
        facts = describe(event)
        # Names of foreign domains may contain any character.
        words = (facts.time, event.name if event.name.isprintable() else shown(event.name))
        text = "  ".join((*words, f"{event.event} {event.detail}".strip()))
        print(json_format.dumps(as_json(facts)) if json else text, flush=True)

    connection = connect_listening(connect)
    try:
        follow(
            connection,
            None if name is None else check_machine_name(name),
            tell,
            everything=everything,
            count=count,
            timeout=timeout,
        )
    except Interrupted as interrupted:
        if interrupted.number != signal.SIGINT:
            raise
