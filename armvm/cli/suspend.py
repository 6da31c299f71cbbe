"""``suspend``: pauses a machine."""

from __future__ import annotations

import typer

from armvm.cli.context import open_host
from armvm.cli.options import Connect, OptionalName


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Machines", epilog="Example: armvm suspend arm64-01")(suspend)


def suspend(name: OptionalName = None, connect: Connect = None) -> None:
    """Suspend a machine: pause its CPUs and keep its memory. 'armvm resume' resumes it."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.power import suspend as suspend_machine

    machine = pick(open_host(connect), name)
    suspend_machine(machine)
    print(f"{machine.name} is suspended")
