"""``clone``: copies a machine that is off."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_where, print_json, progress_for
from armvm.cli.options import Connect, Json, Quiet


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Machines", epilog="Example: armvm clone web-01 web-02")(clone)


NewName = Annotated[str, typer.Argument(metavar="NEW", help="A name that no machine has.")]


def clone(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A machine that is off.", autocompletion=complete.machines
        ),
    ],
    new: NewName,
    connect: Connect = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make another machine of one that is off: its disk as it is, and an identity of its own.

    New are UUID, MAC address, instance-id, ssh host key, machine-id and host name. cloud-init
    runs again at the first boot, with all that user-data asks for (runcmd, packages). Everything
    else on the disk is in both machines, also secrets. 'armvm golden create --from' makes clones
    that need no boot.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.clone import clone as clone_machine
    from armvm.provision.manage.machines import describe

    where = open_where(connect, None)
    clone_machine(where, source, new, progress_for(quiet))
    if json:
        print_json(describe(pick(where.connection, new)))
    else:
        print(f"{new} is made")
        print(f"  armvm start {new}")
