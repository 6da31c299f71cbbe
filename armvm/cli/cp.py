"""``cp``: copies files to and from a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_host, progress_for
from armvm.cli.options import Connect, Share
from armvm.settings.clouds import Cloud

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
            help="Local paths, with NAME:PATH as source or as destination.",
            autocompletion=complete.machine_paths,
        ),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Copy directories and their contents.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    share: Share = True,
    connect: Connect = None,
    cloud: Cloud | None = None,
) -> None:
    """Copy files to or from a machine, with their modes and times.

    armvm copies as the machine's user. Relative guest paths start in that user's home directory.
    Guest paths are literal: patterns are not expanded. Write a local file with a colon in its name
    as ./NAME. Symbolic links are followed.

    To and from a clone of a golden, until it is stopped or reboots, the files go as a tar archive
    through armvm's own channel; more than 32 MiB are copied on a disk that armvm plugs in for the
    copy. To and from other machines, scp copies them, over the connection that 'armvm ssh' uses,
    with the same host key check.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.cp(cloud, paths, recursive=recursive, quiet=quiet)
        return
    from armvm.provision.access.cp import copy, read_copy
    from armvm.provision.machine.pick import pick

    wanted = read_copy(paths)
    machine = pick(open_host(connect), wanted.machine)
    progress = progress_for(quiet)
    raise typer.Exit(
        copy(machine, wanted, recursive=recursive, quiet=quiet, progress=progress, share=share)
    )
