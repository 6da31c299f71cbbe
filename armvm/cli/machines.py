"""``list``, ``show``, ``start``, ``stop``, ``delete`` and ``wait``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import (
    agreed,
    left_running,
    open_host,
    print_fields,
    print_json,
    print_rows,
    progress_for,
    short_reference,
)
from armvm.cli.options import Connect, Json, OptionalName, PoolName, Quiet, Timeout


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    panel = "Machines"
    app.command("list", rich_help_panel=panel, epilog="Example: armvm list --json")(list_)
    app.command(rich_help_panel=panel, epilog="Example: armvm show arm64-01 --json")(show)
    app.command(
        rich_help_panel=panel,
        epilog="Examples:\n\n  armvm start arm64-01\n\n  armvm start arm64-01 arm64-02 --no-wait",
    )(start)
    app.command(rich_help_panel=panel, epilog="Example: armvm stop arm64-01 --force")(stop)
    app.command(rich_help_panel=panel, epilog="Example: armvm delete arm64-01 --yes")(delete)
    app.command(rich_help_panel=panel, epilog="Example: armvm wait arm64-01 --timeout 600")(wait)


def list_(connect: Connect = None, json: Json = False) -> None:
    """List the machines that armvm made."""
    from armvm.provision.machines import overviews

    rows = overviews(open_host(connect))
    if json:
        print_json(rows)
        return
    if not rows:
        print("no machines yet: armvm create makes one", file=sys.stderr)
        return
    columns = ["name", "state", "cpus", "memory_mib", "image", "network", "ssh"]
    shown = [
        {
            **row,
            "image": short_reference(row["image"]),
            "ssh": f"{row['ssh']} via {row['via']}" if row["via"] else row["ssh"],
        }
        for row in rows
    ]
    cells = [["-" if row[key] is None else str(row[key]) for key in columns] for row in shown]
    print_rows(["NAME", "STATE", "CPUS", "MIB", "IMAGE", "NETWORK", "SSH"], cells)


def show(
    name: OptionalName = None,
    connect: Connect = None,
    identity: Annotated[
        bool, typer.Option("--identity", help="Ask the guest itself who it is, by its agent.")
    ] = False,
    json: Json = False,
) -> None:
    """Show all that is known of a machine."""
    from armvm.provision.machines import describe
    from armvm.provision.machines import identity as ask_identity
    from armvm.provision.pick import pick

    machine = pick(open_host(connect), name)
    facts = ask_identity(*machine) if identity else describe(*machine)
    (print_json if json else print_fields)(facts)


def start(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="The machines; not needed where there is only one.",
            autocompletion=complete.machines,
        ),
    ] = None,
    connect: Connect = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until they can be logged in to.")
    ] = True,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Start machines, and wait until they can be logged in to.

    One that is not ready in time (exit 11), or whose cloud-init ended in error or that refuses
    armvm's key (exit 12), goes on running; so do all when Ctrl-C ends the wait.
    """
    from armvm.provision.pick import pick
    from armvm.provision.power import start_all

    connection, progress = open_host(connect), progress_for(quiet)
    chosen = [pick(connection, one) for one in dict.fromkeys(names or [])]
    chosen = chosen or [pick(connection, None)]

    def tell(name: str) -> None:
        print(f"{name} is ready: armvm ssh {name}", flush=True)

    started = start_all(connection, chosen, progress)
    if not wait:
        for one in started.instances:
            print(f"{one.name} is starting\n  armvm wait {one.name}")
    else:
        with left_running([one.name for one in started.instances]):
            started.wait(connection, timeout=timeout, progress=progress, tell=tell)
    started.assert_all()


def stop(
    name: OptionalName = None,
    connect: Connect = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Pull the plug.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=1,
            help="How long the guest may take. Default: 60, emulated 600.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Ask a machine to shut down, and wait until it is off."""
    from armvm.provision.machines import stop as stop_machine
    from armvm.provision.pick import pick

    domain, instance = pick(open_host(connect), name)
    with progress_for(quiet).task(f"stopping {instance.name}"):
        stop_machine(domain, instance, force=force, timeout=timeout)
    print(f"{instance.name} is off")


def delete(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME…", help="The machines.", autocompletion=complete.machines),
    ],
    connect: Connect = None,
    pool: PoolName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove machines with all that belongs to them: domain, disks, seed, NVRAM, serial log."""
    from armvm.provision.access import pool_name
    from armvm.provision.delete import assert_there
    from armvm.provision.delete import delete as delete_machine
    from armvm.spec.names import check_machine_name

    connection, where = open_host(connect), pool_name(pool)
    for name in names:
        check_machine_name(name)
    for name in names:
        assert_there(connection, name, pool_name=where)
    question = f"Remove {', '.join(names)} with all data?"
    if not agreed(yes, question, "this removes machines for good"):
        return
    for name in names:
        delete_machine(connection, name, pool_name=where)
        print(f"{name} is gone")


def wait(
    name: OptionalName = None,
    connect: Connect = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Wait until a machine can be logged in to, and cloud-init has finished."""
    from armvm.provision.pick import pick

    connection = open_host(connect)
    _wait(connection, pick(connection, name)[1].name, timeout, quiet)


def _wait(connection: object, name: str, timeout: float | None, quiet: bool) -> None:
    from armvm.provision.wait import wait_ready

    wait_ready(connection, name, timeout=timeout, progress=progress_for(quiet))
    print(f"{name} is ready: armvm ssh {name}")
