"""``ssh``: logs in to a machine."""

from __future__ import annotations

import sys

import typer

from armvm.base.printable import printable_lines
from armvm.cli.context import open_host
from armvm.cli.options import Connect, OptionalName, Share
from armvm.settings.clouds import Cloud


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command(
        rich_help_panel="Login",
        options_metavar="[OPTIONS]",
        epilog="Examples:\n\n  armvm ssh\n\n  armvm ssh -- uname -m\n\n"
        "  tar c . | armvm ssh arm64-01 -- tar x",
    )(ssh)


def ssh(
    context: typer.Context,
    name: OptionalName = None,
    share: Share = True,
    connect: Connect = None,
    cloud: Cloud | None = None,
) -> None:
    """Log in by ssh, or run the command after -- and return its exit code.

    The exit code is 128 + n for signal n, and 255 if ssh itself failed. ssh checks the machine's
    host key strictly from the first connection, because armvm created the key.

    Commands share a connection, which closes when it has been unused for 10 minutes. The user's
    groups and limits in the guest are those of its login. With --no-share, armvm logs in again.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.ssh(cloud, name, context.obj or [])
        return
    from armvm.provision.access.ssh import login
    from armvm.provision.machine.pick import pick

    machine = pick(open_host(connect), name)
    code, said, advice = login(machine, context.obj or [], share=share)
    if said is not None:
        print(printable_lines(said), file=sys.stderr)
    if advice is not None:
        print(f"hint: {printable_lines(advice)}", file=sys.stderr)
    raise typer.Exit(code)
