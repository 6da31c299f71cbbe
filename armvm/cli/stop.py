"""``stop``: shuts machines down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from armvm.cli.context import (
    each,
    open_host,
    progress_for,
)
from armvm.cli.options import (
    All,
    Connect,
    OptionalNames,
    Quiet,
    ShutdownTimeout,
)
from armvm.settings.clouds import Cloud

if TYPE_CHECKING:
    from armvm.provision.machine.pick import Handle


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm stop arm64-01 --force\n\n  armvm stop --all",
    )(stop)


def stop(
    names: OptionalNames = None,
    every: All = False,
    connect: Connect = None,
    cloud: Cloud | None = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Power off without a clean shutdown.")
    ] = False,
    timeout: ShutdownTimeout = None,
    quiet: Quiet = False,
) -> None:
    """Shut machines down one after another, and wait until each is off."""
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.refuse(cloud, "--force", force, "Nova powers a guest off itself after a time")
        on_cloud.stop(cloud, names or [], every=every, timeout=timeout, quiet=quiet)
        return
    from armvm.provision.machine.pick import pick_many
    from armvm.provision.manage.machines import stop as stop_machine

    progress = progress_for(quiet)
    machines = pick_many(open_host(connect), names or [], every=every, said=progress.warn)

    def end(machine: Handle) -> None:
        with progress.task(f"stopping {machine.name}"):
            stop_machine(machine, force=force, timeout=timeout)
        print(f"{machine.name} is off")

    each(machines, end, progress)
