"""``rename``: renames a machine."""

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
    typer.Argument(
        metavar="OLD", help="Machine to rename; must be off.", autocompletion=complete.machines
    ),
]


NewName = Annotated[str, typer.Argument(metavar="NEW", help="New name; must be unused.")]


def rename(old: OldName, new: NewName, connect: Connect = None, quiet: Quiet = False) -> None:
    """Rename a machine with its domain, volumes and UEFI variables.

    UUID, addresses and host key do not change. cloud-init changes the guest's host name at the
    next boot. If you cannot write to the pool's directory, armvm copies the disk and removes the
    old one, which needs space for the copy.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.rename import rename as rename_machine

    connection = open_host(connect)
    machine = pick(connection, old)
    rename_machine(machine, new, progress_for(quiet))
    print(f"{old} renamed to {new}")
