"""``top``: shows the resource use of machines, live."""

from __future__ import annotations

import json as json_format
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.base.progress import Plain, size_text
from armvm.base.result import as_json
from armvm.cli.context import open_host, print_json, print_rows
from armvm.cli.options import Connect, OptionalNames, seconds

if TYPE_CHECKING:
    from armvm.provision.monitor.top import Usage

_COLUMNS = [
    "NAME",
    "STATE",
    "VCPUS",
    "CPU %",
    "MIB",
    "RESIDENT",
    "READ/S",
    "WRITE/S",
    "IN/S",
    "OUT/S",
]


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(
        rich_help_panel="Machines", epilog="Examples:\n\n  armvm top\n\n  armvm top --once --json"
    )(top)


def top(
    names: OptionalNames = None,
    connect: Connect = None,
    once: Annotated[
        bool, typer.Option("--once", help="Measure one interval, print it and exit.")
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="SECONDS", parser=seconds(0.1), help="Interval to measure."
        ),
    ] = 2.0,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON on standard output; without --once, one line per interval."
        ),
    ] = False,
) -> None:
    """Show CPU, memory, disk and network use of running machines, the busiest first.

    CPU is in percent of one host CPU. RESIDENT is the host memory of the machine's QEMU; memory
    shared by clones counts for each clone. Traffic of user networking is not counted. The table
    is updated until Ctrl-C: in place on a terminal, printed again elsewhere.
    """
    from armvm.cli.main import Interrupted
    from armvm.provision.machine.pick import pick_many
    from armvm.provision.monitor.top import usages

    connection = open_host(connect)
    uuids = None
    if names:
        chosen = pick_many(connection, names, said=Plain(sys.stderr).say)
        for machine in chosen:
            if machine.name in names:
                machine.require_running()
        uuids = {machine.instance.uuid for machine in chosen}
    looks = usages(connection, interval, uuids)
    if once:
        rows = next(looks)
        print_json(rows) if json else print_rows(_COLUMNS, [_cells(row) for row in rows])
        return
    try:
        if json:
            for rows in looks:
                print(json_format.dumps(as_json(rows)), flush=True)
        elif sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            _live(looks)
        else:
            for rows in looks:
                print_rows(_COLUMNS, [_cells(row) for row in rows])
                print(flush=True)
    except Interrupted as interrupted:
        if interrupted.number != signal.SIGINT:
            raise


def _live(looks: Iterator[list[Usage]]) -> None:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    with Live(Text("measuring …"), auto_refresh=False, screen=True) as live:
        live.refresh()
        for rows in looks:
            cells = [_cells(row) for row in rows]
            table = Table(box=None, pad_edge=False, header_style="bold")
            for index, column in enumerate(_COLUMNS):
                # On a narrow terminal, cut names but never numbers.
                width = max(len(text) for text in (column, *(row[index] for row in cells)))
                table.add_column(
                    column,
                    justify="left" if index < 2 else "right",
                    no_wrap=True,
                    min_width=width if index else None,
                )
            for row in cells:
                table.add_row(*(Text(cell) for cell in row))
            live.update(table, refresh=True)


def _cells(row: Usage) -> list[str]:
    cpu, resident = row.cpu_percent, row.resident
    rates = (row.disk_read, row.disk_write, row.net_receive, row.net_send)
    return [
        row.name,
        row.state,
        str(row.cpus),
        "-" if cpu is None else f"{cpu:.1f}",
        str(row.memory_mib),
        "-" if resident is None else size_text(resident),
        *("-" if one is None else size_text(one) for one in rates),
    ]
