"""``resume``: continues a suspended machine."""

from __future__ import annotations

import typer

from armvm.cli.context import open_host, progress_for
from armvm.cli.options import Connect, OptionalName, Quiet


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Machines", epilog="Example: armvm resume arm64-01")(resume)


def resume(name: OptionalName = None, connect: Connect = None, quiet: Quiet = False) -> None:
    """Resume a suspended machine, and set its clock through the guest agent."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.power import resume as resume_machine

    machine = pick(open_host(connect), name)
    resume_machine(machine, progress_for(quiet))
    print(f"{machine.name} is running")
