"""``restart``: reboots machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from armvm.cli.context import each, left_running, progress_for, up
from armvm.cli.options import All, Connect, OptionalNames, Quiet, ShutdownTimeout
from armvm.settings.clouds import Cloud

if TYPE_CHECKING:
    from armvm.provision.machine.pick import Handle


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm restart arm64-01\n\n  armvm restart arm64-01 --force"
        "\n\n  armvm restart arm64-01 --power-cycle",
    )(restart)


def restart(
    names: OptionalNames = None,
    every: All = False,
    connect: Connect = None,
    cloud: Cloud | None = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Reset the machine without a clean shutdown.")
    ] = False,
    power_cycle: Annotated[
        bool,
        typer.Option("--power-cycle", help="Stop the machine and start it in a new QEMU process."),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Wait until you can log in again. Default: wait.",
            show_default=False,
        ),
    ] = True,
    timeout: ShutdownTimeout = None,
    quiet: Quiet = False,
) -> None:
    """Restart machines one after another, and wait until you can log in again.

    --all restarts the running machines.

    armvm uses the guest agent, or the ACPI power button if there is none. QEMU keeps running:
    changes to a machine's definition take effect only with --power-cycle. An emulated guest that
    has run for long also boots faster with it.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.restart(
            cloud,
            names or [],
            every=every,
            force=force,
            power_cycle=power_cycle,
            wait=wait,
            timeout=timeout,
            quiet=quiet,
        )
        return
    from armvm.provision.machine.pick import pick_many
    from armvm.provision.manage import power
    from armvm.provision.monitor.events import connect as connect_listening
    from armvm.provision.monitor.wait import wait_up

    connection, progress = connect_listening(connect), progress_for(quiet)
    machines = pick_many(connection, names or [], every=every, said=progress.warn)

    act = power.power_cycle if power_cycle else power.restart

    def again(machine: Handle) -> None:
        act(machine, force=force, timeout=timeout, progress=progress)
        if wait:
            with left_running([machine.name]):
                ready = wait_up(connection, machine.name, timeout=None, progress=progress)
            print(up(machine.name, ready=ready is not None))
        else:
            print(f"{machine.name} restarted")

    each([one for one in machines if one.running or not every], again, progress)
