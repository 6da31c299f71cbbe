"""``ip``: prints a machine's addresses."""

from __future__ import annotations

import typer

from armvm.base.printable import printable
from armvm.cli.context import open_host, print_json
from armvm.cli.options import Connect, Json, OptionalName
from armvm.settings.clouds import Cloud


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Network", epilog="Example: armvm ip arm64-01 --json")(ip)


def ip(
    name: OptionalName = None,
    connect: Connect = None,
    cloud: Cloud | None = None,
    json: Json = False,
) -> None:
    """Print the addresses that reach a machine from its host, one per line.

    The first network's come first, IPv4 before IPv6.

    With user networking, the host cannot reach the guest's own address: armvm prints the host
    addresses and ports forwarded to it, the ssh port first. --json prints both.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.ip(cloud, name, json)
        return
    from armvm.provision.access.forward import addresses, reachable
    from armvm.provision.machine.pick import pick

    connection = open_host(connect)
    facts = addresses(pick(connection, name))
    if json:
        print_json(facts)
        return
    for line in reachable(facts):
        print(printable(line))
