"""``ip``: where a machine is reached."""

from __future__ import annotations

import typer

from armvm.cli.context import open_host, print_json
from armvm.cli.options import Connect, Json, OptionalName


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Network", epilog="Example: armvm ip arm64-01 --json")(ip)


def ip(name: OptionalName = None, connect: Connect = None, json: Json = False) -> None:
    """Print the addresses at which the host reaches a machine, one a line, IPv4 first.

    With user networking the guest's own address is nobody else's: what is printed are the host's
    addresses and ports that lead to it, ssh's first. --json tells both.
    """
    from armvm.provision.access.forward import addresses, reachable
    from armvm.provision.machine.pick import pick

    connection = open_host(connect)
    facts = addresses(pick(connection, name))
    if json:
        print_json(facts)
        return
    for line in reachable(facts):
        print(line)
