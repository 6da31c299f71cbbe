"""``screenshot``: saves a machine's screen as a PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armvm.cli.context import check_file, open_host, print_json
from armvm.cli.options import Connect, Json, Name
from armvm.settings.user_path import given_path


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Login", epilog="Example: armvm screenshot arm64-01 screen.png")(
        screenshot
    )


def screenshot(
    name: Name,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.png", help="File to write or replace.", parser=given_path),
    ],
    screen: Annotated[
        int, typer.Option("--screen", metavar="N", min=0, help="Number of the screen.")
    ] = 0,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Save a machine's screen as a PNG file. Headless machines cannot be captured."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.monitor.screenshot import screenshot as take

    check_file(file)
    connection = open_host(connect)
    done = take(connection, pick(connection, name).domain, file, screen=screen)
    if json:
        print_json(done)
    else:
        print(f"{done.file}: {done.width} × {done.height}")
