"""``cp``: files to and from a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_host
from armvm.cli.options import Connect

_EXAMPLES = """Examples:

  armvm cp notes.txt arm64-01:

  armvm cp -r src arm64-01:/tmp

  armvm cp arm64-01:/var/log/syslog arm64-01:/etc/hostname ."""


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Login", epilog=_EXAMPLES)(cp)


def cp(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC… DST",
            help="Files of this host, and NAME:PATH on one of the two sides.",
            autocompletion=complete.machine_paths,
        ),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Copy directories with all that is in them.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    connect: Connect = None,
) -> None:
    """Copy files to or from a machine by scp, with their modes and times.

    It connects as 'armvm ssh' does: as the machine's user, strict about the host key. A path in
    the guest without a slash in front begins in that user's home. Names are taken as they are,
    without patterns; a file of this host with a colon in its name is written ./NAME. Symbolic
    links are followed.
    """
    from armvm.provision.access.cp import copy, read_copy
    from armvm.provision.machine.pick import pick

    wanted = read_copy(paths)
    machine = pick(open_host(connect), wanted.machine)
    raise typer.Exit(copy(machine, wanted, recursive=recursive, quiet=quiet))
