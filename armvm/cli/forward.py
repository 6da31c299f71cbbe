"""``forward add|list|remove``: ports of the host that lead into a machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli.context import open_host, print_json, print_rows
from armvm.cli.options import Connect, Json, Name, OptionalName

app = typer.Typer(
    no_args_is_help=True,
    rich_help_panel="Network",
    help="The host's ports that lead into a machine with user networking.",
)

ForwardText = Annotated[
    str,
    typer.Argument(
        metavar="HOST:GUEST",
        help="The host's port and the guest's: 8080:80, 0.0.0.0:8080:80, 5353:53/udp.",
    ),
]


@app.command(
    epilog="Examples:\n\n  armvm forward add arm64-01 8080:80\n\n"
    "  armvm forward add arm64-01 0.0.0.0:8443:443"
)
def add(name: Name, forward: ForwardText, connect: Connect = None, json: Json = False) -> None:
    """Have a port of the host lead to one of the guest's: now, and after every start.

    The host (libvirt's, which may be another one) listens on its loopback unless an address is
    given. On a remote host, the ssh command that leads there from here is printed. A machine on a
    libvirt network needs none of it: 'armvm ip' tells its address. A start by virsh sets up
    nothing; the next armvm command that reaches the machine does.
    """
    from armvm.provision.access.forward import add as add_forward
    from armvm.provision.access.forward import describe, told
    from armvm.provision.machine.pick import pick

    connection = open_host(connect)
    domain, instance = pick(connection, name)
    rule = add_forward(connection, domain, instance, forward)
    if json:
        [made] = [one for one in describe(*pick(connection, name)) if one.forward == str(rule)]
        print_json(made)
    elif instance.running:
        print("\n".join(told(connection, instance, rule)))
    else:
        print(f"{rule} takes effect when {name} is started")


@app.command("list", epilog="Example: armvm forward list arm64-01 --json")
def list_(name: OptionalName = None, connect: Connect = None, json: Json = False) -> None:
    """List the ports that lead to a machine; without a name, to all machines."""
    from armvm.provision.access.forward import describe_all
    from armvm.provision.machine.pick import everything, pick

    connection = open_host(connect)
    found = describe_all(everything(connection) if name is None else [pick(connection, name)])
    if json:
        print_json(found)
        return
    if not found:
        print(f"none: armvm ip {name or 'NAME'} tells its address", file=sys.stderr)
        return
    rows = [
        [
            one.machine,
            one.listen,
            str(one.host_port),
            str(one.guest_port),
            one.protocol.value,
            "ssh" if one.ssh else "-",
            "yes" if one.active else "no",
        ]
        for one in found
    ]
    print_rows(["MACHINE", "LISTEN", "HOST", "GUEST", "PROTOCOL", "USE", "ACTIVE"], rows)


@app.command(epilog="Example: armvm forward remove arm64-01 8080:80")
def remove(
    name: Name,
    forward: Annotated[
        str, typer.Argument(metavar="HOST[:GUEST]", help="The host's port, or all of the forward.")
    ],
    connect: Connect = None,
) -> None:
    """Take a forward away, now and for good."""
    from armvm.provision.access.forward import remove as remove_forward
    from armvm.provision.machine.pick import pick

    domain, instance = pick(open_host(connect), name)
    print(f"{remove_forward(domain, instance, forward)} is gone")
