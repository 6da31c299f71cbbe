"""``show``: shows the details of a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli.context import (
    open_host,
    print_fields,
    print_json,
)
from armvm.cli.options import (
    Connect,
    Json,
    OptionalName,
)
from armvm.settings.clouds import Cloud


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Machines", epilog="Example: armvm show arm64-01 --json")(show)


def show(
    name: OptionalName = None,
    connect: Connect = None,
    cloud: Cloud | None = None,
    identity: Annotated[
        bool,
        typer.Option("--identity", help="Show the guest's identity, as reported by its agent."),
    ] = False,
    json: Json = False,
) -> None:
    """Show the details of a machine."""
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.refuse(cloud, "--identity", identity, "it needs the guest agent")
        on_cloud.show(cloud, name, json)
        return
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.machines import describe
    from armvm.provision.manage.machines import identity as ask_identity

    machine = pick(open_host(connect), name, unfinished=True)
    facts = ask_identity(machine) if identity else describe(machine)
    (print_json if json else print_fields)(facts)
