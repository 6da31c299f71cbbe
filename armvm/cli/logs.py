"""``logs``: prints a guest's serial console output."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli.context import open_host
from armvm.cli.options import Connect, OptionalName
from armvm.settings.clouds import Cloud


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
        typer.Option(
            "--follow", "-f", help="Keep printing until Ctrl-C or until the machine stops."
        ),
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", "-n", metavar="N", min=0, help="Print the last N lines. Default: all."
        ),
    ] = None,
    older: Annotated[
        bool,
        typer.Option("--all", "-a", help="Include older parts: logs are rotated at 2 MiB."),
    ] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Print every byte that the guest sent, including escape sequences."
        ),
    ] = False,
    connect: Connect = None,
    cloud: Cloud | None = None,
) -> None:
    """Print a machine's serial console output since its last start.

    armvm removes escape sequences, but keeps colours on a terminal. --raw removes nothing: with
    it, the guest can send any control sequence to your terminal.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.logs(cloud, name, lines=lines, follow=follow, older=older, raw=raw)
        return
    from armvm.provision.machine.pick import pick
    from armvm.provision.monitor.logs import Request, read_log

    connection = open_host(connect)
    machine = pick(connection, name, unfinished=True)
    request = Request(
        lines=lines, older=older, follow=follow, raw=raw, colours=sys.stdout.isatty() and not raw
    )
    for data in read_log(machine, request):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
