"""``xml``: prints the domain XML of a machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_host, open_where, progress_for
from armvm.cli.options import Connect, MachineOptions, PoolName, with_machine_options
from armvm.cli.request import machine_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Files", epilog=_XML_EXAMPLES)(xml)


_XML_EXAMPLES = """Examples:

  armvm xml arm64-01 > arm64-01.xml

  armvm xml --name new --mem 8G --headless"""


@with_machine_options()
def xml(
    options: MachineOptions,
    machine: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Existing machine. Without it, the options describe a new machine.",
            autocompletion=complete.machines,
        ),
    ] = None,
    connect: Connect = None,
    pool: PoolName = None,
) -> None:
    """Print the domain XML of a machine, or of a new one that the options describe.

    The XML is portable: it has no emulator and firmware paths, because each host adds its own when
    the XML is defined.
    """
    if machine is not None:
        from armvm.provision.manage.machines import portable_xml

        sys.stdout.write(portable_xml(open_host(connect), machine))
        return
    from armvm.provision.connect import free_name
    from armvm.provision.launch.launch import decide

    where = open_where(connect, pool)
    wanted = machine_of(options, options.name or free_name(where.connection))
    sys.stdout.write(decide(where, wanted, progress_for(True)).xml)
