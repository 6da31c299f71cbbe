"""``restart``, ``suspend``, ``resume`` and ``autostart``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from armvm.cli.context import each, left_running, open_host, progress_for
from armvm.cli.options import All, Connect, OptionalName, OptionalNames, Quiet


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    panel = "Machines"
    app.command(
        rich_help_panel=panel,
        epilog="Examples:\n\n  armvm restart arm64-01\n\n  armvm restart arm64-01 --force",
    )(restart)
    app.command(rich_help_panel=panel, epilog="Example: armvm suspend arm64-01")(suspend)
    app.command(rich_help_panel=panel, epilog="Example: armvm resume arm64-01")(resume)
    app.command(
        rich_help_panel=panel,
        epilog="Examples:\n\n  armvm autostart arm64-01\n\n  armvm autostart arm64-01 --off",
    )(autostart)


def restart(
    names: OptionalNames = None,
    every: All = False,
    connect: Connect = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Press its reset button instead of asking.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until it can be logged in to again.")
    ] = True,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=1,
            help="How long the guest may take to go down. Default: 60, emulated 600.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Ask machines to restart, one after another, and wait until they can be logged in to again.

    Of --all, those that run are restarted.

    Asked are the guest agent and, where there is none, the ACPI power button. QEMU goes on: what
    is changed in a machine's definition takes effect only after stop and start.
    """
    from armvm.provision.events import connect as connect_listening
    from armvm.provision.pick import pick_many
    from armvm.provision.power import restart as restart_machine
    from armvm.provision.wait import wait_ready

    connection, progress = connect_listening(connect), progress_for(quiet)
    machines = pick_many(connection, names or [], every=every, said=progress.warn)

    def again(domain: Any, instance: Any) -> None:
        restart_machine(
            connection, domain, instance, force=force, timeout=timeout, progress=progress
        )
        if wait:
            with left_running([instance.name]):
                wait_ready(connection, instance.name, timeout=None, progress=progress)
            print(f"{instance.name} is ready: armvm ssh {instance.name}")
        else:
            print(f"{instance.name} has restarted")

    each([one for one in machines if one[1].running or not every], again, progress)


def suspend(name: OptionalName = None, connect: Connect = None) -> None:
    """Stop a machine's CPUs; its memory stays where it is. 'armvm resume' lets it go on."""
    from armvm.provision.pick import pick
    from armvm.provision.power import suspend as suspend_machine

    domain, instance = pick(open_host(connect), name)
    suspend_machine(domain, instance)
    print(f"{instance.name} is suspended")


def resume(name: OptionalName = None, connect: Connect = None, quiet: Quiet = False) -> None:
    """Let a suspended machine go on, and set its clock by the guest agent."""
    from armvm.provision.pick import pick
    from armvm.provision.power import resume as resume_machine

    domain, instance = pick(open_host(connect), name)
    resume_machine(domain, instance, progress_for(quiet))
    print(f"{instance.name} is running")


def autostart(
    name: OptionalName = None,
    connect: Connect = None,
    off: Annotated[bool, typer.Option("--off", help="Let it start by itself no longer.")] = False,
) -> None:
    """Have a machine start with the host.

    In qemu:///session: with your own libvirt daemon, which starts when you first use it.
    """
    from armvm.provision.pick import pick
    from armvm.provision.power import autostart as set_autostart

    connection = open_host(connect)
    domain, _ = pick(connection, name)
    print(set_autostart(connection, domain, on=not off))
