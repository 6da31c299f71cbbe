"""``proxy``: connects standard input and output to a machine's ssh port."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli.context import open_host
from armvm.cli.options import Connect, OptionalName, Timeout


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Login",
        epilog="Example:\n\n  ssh -o ProxyCommand='armvm proxy arm64-01' debian@arm64-01",
    )(proxy)


def proxy(
    name: OptionalName = None,
    uuid: Annotated[
        str | None,
        typer.Option("--uuid", metavar="UUID", help="Select the machine by UUID instead of NAME."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the ssh server answers.")
    ] = False,
    timeout: Timeout = None,
    share: Annotated[bool, typer.Option("--share", hidden=True)] = False,
    connect: Connect = None,
) -> None:
    """Connect standard input and output to a machine's ssh port, for ssh's ProxyCommand."""
    from armvm.provision.access.proxy import proxy as run_proxy
    from armvm.provision.machine.pick import pick, pick_uuid

    if share:  # for the condition in the entries of `armvm ssh-config`: it only has an exit code
        from armvm.provision.access.ssh_config import can_share

        raise typer.Exit(0 if can_share(connect, uuid or "") else 1)
    connection = open_host(connect)
    machine = pick_uuid(connection, uuid) if uuid is not None else pick(connection, name)
    limit = None
    if wait:
        from armvm.provision.monitor.wait import default_timeout

        limit = timeout or default_timeout(machine.instance)
    source, sink = sys.stdin.fileno(), sys.stdout.buffer.fileno()
    code = run_proxy(machine, source=source, sink=sink, wait=limit)
    raise typer.Exit(code)
