"""``list``: lists machines."""

from __future__ import annotations

import sys

import typer

from armvm.cli.context import (
    open_host,
    print_json,
    print_rows,
    short_reference,
)
from armvm.cli.options import (
    Connect,
    Json,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list", rich_help_panel="Machines", epilog="Example: armvm list --json")(list_)


def list_(connect: Connect = None, json: Json = False) -> None:
    """List machines created by armvm."""
    from armvm.provision.manage.machines import overviews

    rows = overviews(open_host(connect))
    if json:
        print_json(rows)
        return
    if not rows:
        print("no machines found: create one with armvm create", file=sys.stderr)
        return
    cells = [
        [
            row.name,
            row.state,
            str(row.cpus),
            str(row.memory_mib),
            short_reference(row.image),
            row.network,
            f"{row.ssh} via {row.via}" if row.via else row.ssh or "-",
        ]
        for row in rows
    ]
    print_rows(["NAME", "STATE", "CPUS", "MIB", "IMAGE", "NETWORK", "SSH"], cells)
