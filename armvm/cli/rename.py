"""``rename`` and ``clone``: a machine under another name, and another like it."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_host, open_where, print_json, progress_for
from armvm.cli.options import Connect, Json, Quiet


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    panel = "Machines"
    app.command(rich_help_panel=panel, epilog="Example: armvm rename arm64-01 web-01")(rename)
    app.command(rich_help_panel=panel, epilog="Example: armvm clone web-01 web-02")(clone)


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
    from armvm.provision.pick import pick
    from armvm.provision.rename import rename as rename_machine

    connection = open_host(connect)
    domain, instance = pick(connection, old)
    rename_machine(connection, domain, instance, new, progress_for(quiet))
    print(f"{old} is {new} now")


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
    from armvm.provision.duplicate import clone as clone_machine
    from armvm.provision.machines import describe
    from armvm.provision.pick import pick

    where = open_where(connect, None)
    clone_machine(where, source, new, progress_for(quiet))
    if json:
        print_json(describe(*pick(where.connection, new)))
    else:
        print(f"{new} is made")
        print(f"  armvm start {new}")
