"""``autostart``: starts a machine with its host."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli.context import open_host
from armvm.cli.options import Connect, OptionalName


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm autostart arm64-01\n\n  armvm autostart arm64-01 --off",
    )(autostart)


def autostart(
    name: OptionalName = None,
    connect: Connect = None,
    off: Annotated[bool, typer.Option("--off", help="Disable autostart.")] = False,
) -> None:
    """Start a machine when the host starts.

    With qemu:///session, it starts with your own libvirt daemon, which starts at its first use.
    Since libvirt 11.2, that daemon also saves the machines that run when the host shuts down, and
    restores them when it starts again. Their clocks are late until NTP corrects them.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.power import autostart as set_autostart

    connection = open_host(connect)
    print(set_autostart(connection, pick(connection, name).domain, on=not off))
