"""``logs``: what a guest printed on its serial console."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli.context import open_host
from armvm.cli.options import Connect, OptionalName


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(
        rich_help_panel="Login",
        epilog="Examples:\n\n  armvm logs arm64-01 -n 20\n\n  armvm logs arm64-01 -f",
    )(logs)


def logs(
    name: OptionalName = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until Ctrl-C, or until the machine stops."),
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", metavar="N", min=0, help="The last N lines. Default: all."),
    ] = None,
    older: Annotated[
        bool,
        typer.Option("--all", "-a", help="Also what was moved away of a log of more than 2 MiB."),
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Every byte as the guest sent it, escape sequences too.")
    ] = False,
    connect: Connect = None,
) -> None:
    """Print what a machine printed on its serial console since its last start.

    Escape sequences are left out; on a terminal, colours stay. --raw leaves nothing out, which
    lets a guest do to your terminal what its programs please.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.monitor.logs import Wish, read_log

    connection = open_host(connect)
    machine = pick(connection, name, unfinished=True)
    wish = Wish(
        lines=lines, older=older, follow=follow, raw=raw, colours=sys.stdout.isatty() and not raw
    )
    for data in read_log(machine, wish):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
