"""``rename``: a new name for a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_host, progress_for
from armvm.cli.options import Connect, Quiet


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Machines", epilog="Example: armvm rename arm64-01 web-01")(rename)


OldName = Annotated[
    str,
    typer.Argument(metavar="OLD", help="A machine that is off.", autocompletion=complete.machines),
]


NewName = Annotated[str, typer.Argument(metavar="NEW", help="A name that no machine has.")]


def rename(old: OldName, new: NewName, connect: Connect = None, quiet: Quiet = False) -> None:
    """Give a machine another name, with all that bears it: domain, volumes, UEFI variables.

    It stays the same machine: UUID, addresses, host key. The host name in the guest follows at
    its next boot, by cloud-init. Takes no space where you may write to the pool's directory;
    elsewhere the disk is copied, and the old one removed.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.rename import rename as rename_machine

    connection = open_host(connect)
    machine = pick(connection, old)
    rename_machine(machine, new, progress_for(quiet))
    print(f"{old} is {new} now")
