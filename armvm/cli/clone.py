"""``clone``: copies a machine that is off."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_where, print_json, progress_for
from armvm.cli.options import Connect, Json, Quiet
from armvm.settings.table import SETTINGS

_EXAMPLES = """Examples:

  armvm clone web-01 web-02

  armvm clone web-01 web-02 --ip 192.168.128.52"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Machines", epilog=_EXAMPLES)(clone)


NewName = Annotated[str, typer.Argument(metavar="NEW", help="Name of the clone; must be unused.")]


def clone(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Machine to clone; must be off.",
            autocompletion=complete.machines,
        ),
    ],
    new: NewName,
    ip: Annotated[
        str | None, typer.Option("--ip", metavar="ADDRESS", help=SETTINGS["ip"].option_help)
    ] = None,
    connect: Connect = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a machine that is off, and give the copy its own identity.

    The copy gets a new UUID, MAC address, instance-id, ssh host key, machine-id and host name.
    cloud-init runs again at the first boot, including the user-data's runcmd and packages.
    Everything else on the disk is the same in both machines, including secrets and the static
    addresses of a --network-config. For clones that start without booting, use 'armvm golden
    create --from'.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.clone import clone as clone_machine
    from armvm.provision.manage.machines import describe

    where = open_where(connect, None)
    clone_machine(where, source, new, progress_for(quiet), address=ip)
    if json:
        print_json(describe(pick(where.connection, new)))
    else:
        print(f"{new} created")
        print(f"  armvm start {new}")
