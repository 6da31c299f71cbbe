"""``network list|show|create|delete``."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import (
    agreed,
    open_host,
    open_where,
    print_fields,
    print_json,
    print_rows,
)
from armvm.cli.options import Connect, Json

app = typer.Typer(
    no_args_is_help=True,
    help="libvirt networks: list them, and create more for machines.",
    rich_help_panel="Network",
)

NetworkName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the network.", autocompletion=complete.libvirt_networks
    ),
]

_CREATE_EXAMPLES = """Examples:

  armvm network create lab --subnet 10.5.0.0/24

  armvm network create backend --isolated

  armvm create --network armvm --network backend"""

_DELETE_EXAMPLES = "Example: armvm network delete lab --yes"


@app.command("list", epilog="Example: armvm network list --json")
def list_(connect: Connect = None, json: Json = False) -> None:
    """List libvirt networks, and the machines on them."""
    from armvm.provision.manage.networks import listed

    found = listed(open_host(connect))
    if json:
        print_json(found)
        return
    if not found:
        print("no networks found: create one with armvm network create", file=sys.stderr)
        return
    rows = [
        [
            one.name,
            one.mode,
            one.subnet or "-",
            one.bridge or "-",
            "yes" if one.active else "no",
            "yes" if one.own else "no",
            ",".join(one.machines) or "-",
        ]
        for one in found
    ]
    print_rows(["NAME", "MODE", "SUBNET", "BRIDGE", "ACTIVE", "OWN", "MACHINES"], rows)


@app.command(epilog="Example: armvm network show armvm --json")
def show(name: NetworkName, connect: Connect = None, json: Json = False) -> None:
    """Show a network: its subnet, machines, reserved addresses and leases."""
    from armvm.provision.manage.networks import describe

    facts = describe(open_host(connect), name)
    if json:
        print_json(facts)
        return
    values = {key: value for key, value in vars(facts).items() if key not in _TABLES}
    print_fields(values)
    if facts.reservations:
        print()
        rows = [[one.address, one.mac or "-", one.name or "-"] for one in facts.reservations]
        print_rows(["RESERVED", "MAC", "MACHINE"], rows)
    if facts.leases:
        print()
        rows = [
            [one.address, one.mac, one.machine or "-", one.expires or "never"]
            for one in facts.leases
        ]
        print_rows(["LEASED", "MAC", "MACHINE", "UNTIL"], rows)


_TABLES = ("reservations", "leases")


@app.command(epilog=_CREATE_EXAMPLES)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name; must be unused.")],
    subnet: Annotated[
        str | None,
        typer.Option(
            "--subnet",
            metavar="ADDRESS/PREFIX",
            help="IPv4 subnet of the network. Default: a free /24.",
        ),
    ] = None,
    isolated: Annotated[
        bool,
        typer.Option(
            "--isolated",
            help="Connect the machines only with each other and the host. Default: NAT, so that "
            "they reach other networks too.",
        ),
    ] = False,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Create a network with a DHCP server, and start it.

    The host has its first address. libvirt starts the network with the host. armvm refuses a subnet
    that overlaps another network, a route or an address of the host.
    """
    from armvm.provision.manage.networks import create as create_network
    from armvm.provision.manage.networks import describe

    where = open_where(connect, None)
    create_network(where.connection, where.facts, name, subnet, isolated=isolated)
    facts = describe(where.connection, name)
    if json:
        print_json(facts)
    else:
        print(f"network {name} created: {facts.mode}, {facts.subnet}")
        print(f"  armvm create --network {shlex.quote(name)}")


@app.command(epilog=_DELETE_EXAMPLES)
def delete(
    name: NetworkName,
    connect: Connect = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a network that armvm created and that no machine uses."""
    from armvm.provision.manage.networks import assert_deletable
    from armvm.provision.manage.networks import delete as delete_network

    connection = open_host(connect)
    assert_deletable(connection, name)
    if not agreed(yes, f"Delete network {name}?", f"this permanently deletes network {name}"):
        return
    delete_network(connection, name)
    print(f"network {name} deleted")
