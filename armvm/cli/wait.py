"""``wait``: waits until a machine is ready."""

from __future__ import annotations

import typer

from armvm.cli.context import open_host, progress_for, up
from armvm.cli.options import (
    Connect,
    OptionalName,
    Quiet,
    Timeout,
)
from armvm.settings.clouds import Cloud


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Machines", epilog="Example: armvm wait arm64-01 --timeout 600")(
        wait
    )


def wait(
    name: OptionalName = None,
    connect: Connect = None,
    cloud: Cloud | None = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Wait until you can log in to a machine and cloud-init has finished.

    For a machine without a cloud-init seed (create --cdrom, --no-seed, --ignition): wait until it
    shows a login prompt on its serial console.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.wait(cloud, name, timeout=timeout, quiet=quiet)
        return
    from armvm.provision.machine.pick import pick
    from armvm.provision.monitor.wait import wait_up

    connection = open_host(connect)
    machine = pick(connection, name)
    machine.require_running()
    name = machine.name
    ready = wait_up(connection, name, timeout=timeout, progress=progress_for(quiet))
    print(up(name, ready=ready is not None))
