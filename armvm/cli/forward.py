"""``forward add|list|remove``: forwards host ports to a machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli.context import open_host, print_json, print_rows
from armvm.cli.options import Connect, Json, Name, OptionalName

app = typer.Typer(
    no_args_is_help=True,
    rich_help_panel="Network",
    help="Forward host ports to a machine with user networking.",
)

ForwardText = Annotated[
    str,
    typer.Argument(
        metavar="HOST:GUEST",
        help="Host port and guest port: 8080:80, 0.0.0.0:8080:80, 5353:53/udp.",
    ),
]


@app.command(
    epilog="Examples:\n\n  armvm forward add arm64-01 8080:80\n\n"
    "  armvm forward add arm64-01 0.0.0.0:8443:443"
)
def add(name: Name, forward: ForwardText, connect: Connect = None, json: Json = False) -> None:
    """Forward a host port to a guest port, now and after every start.

    The libvirt host listens on its loopback address unless you give another. For a remote host,
    armvm prints the ssh command that reaches the port from here. A machine on a libvirt network
    needs no forwards: use the address that 'armvm ip' prints. After a start by virsh, the next
    armvm command that connects to the machine restores its forwards.
    """
    from armvm.provision.access.forward import add as add_forward
    from armvm.provision.access.forward import describe, told
    from armvm.provision.machine.pick import pick

    connection = open_host(connect)
    machine = pick(connection, name)
    rule = add_forward(machine, forward)
    if json:
        [made] = [one for one in describe(pick(connection, name)) if one.forward == str(rule)]
        print_json(made)
    elif machine.running:
        print("\n".join(told(connection, machine.instance, rule)))
    else:
        print(f"{rule} takes effect at the next start of {name}")


@app.command("list", epilog="Example: armvm forward list arm64-01 --json")
def list_(name: OptionalName = None, connect: Connect = None, json: Json = False) -> None:
    """List a machine's forwarded ports; without a name, those of all machines."""
    from armvm.provision.access.forward import describe_all
    from armvm.provision.machine.pick import everything, pick

    connection = open_host(connect)
    found = describe_all(everything(connection) if name is None else [pick(connection, name)])
    if json:
        print_json(found)
        return
    if not found:
        print(f"no forwards found: armvm ip {name or 'NAME'} prints the address", file=sys.stderr)
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
        str, typer.Argument(metavar="HOST[:GUEST]", help="Host port, or the whole forward.")
    ],
    connect: Connect = None,
) -> None:
    """Remove a forward, now and for later starts."""
    from armvm.provision.access.forward import remove as remove_forward
    from armvm.provision.machine.pick import pick

    machine = pick(open_host(connect), name)
    print(f"{remove_forward(machine, forward)} removed")
