"""``list``, ``show``, ``start``, ``stop``, ``delete`` and ``wait``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from armvm.cli import complete
from armvm.cli.context import (
    agreed,
    each,
    left_running,
    open_host,
    print_fields,
    print_json,
    print_rows,
    progress_for,
    short_reference,
)
from armvm.cli.options import (
    All,
    Connect,
    Json,
    OptionalName,
    OptionalNames,
    PoolName,
    Quiet,
    Timeout,
)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    panel = "Machines"
    app.command("list", rich_help_panel=panel, epilog="Example: armvm list --json")(list_)
    app.command(rich_help_panel=panel, epilog="Example: armvm show arm64-01 --json")(show)
    app.command(
        rich_help_panel=panel,
        epilog="Examples:\n\n  armvm start arm64-01\n\n  armvm start 'job-*' --no-wait",
    )(start)
    app.command(
        rich_help_panel=panel,
        epilog="Examples:\n\n  armvm stop arm64-01 --force\n\n  armvm stop --all",
    )(stop)
    app.command(
        rich_help_panel=panel,
        epilog="Examples:\n\n  armvm delete arm64-01 --yes\n\n  armvm delete 'job-*'",
    )(delete)
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

    machine = pick(open_host(connect), name, unfinished=True)
    facts = ask_identity(*machine) if identity else describe(*machine)
    (print_json if json else print_fields)(facts)


def start(
    names: OptionalNames = None,
    every: All = False,
    connect: Connect = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until they can be logged in to.")
    ] = True,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Start machines, and wait until they can be logged in to.

    Of --all and of a pattern, those that are off are started. One that is not ready in time
    (exit 11), or whose cloud-init ended in error or that refuses armvm's key (exit 12), keeps
    running; so do all when Ctrl-C ends the wait.
    """
    from armvm.provision.pick import is_pattern, pick_many
    from armvm.provision.power import start_all

    connection, progress = open_host(connect), progress_for(quiet)
    chosen = pick_many(connection, names or [], every=every, said=progress.warn)
    if every or any(map(is_pattern, names or [])):
        chosen = [one for one in chosen if not one[1].running or one[1].name in (names or [])]

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
    names: OptionalNames = None,
    every: All = False,
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
    """Ask machines to shut down, one after another, and wait until each is off."""
    from armvm.provision.machines import stop as stop_machine
    from armvm.provision.pick import pick_many

    progress = progress_for(quiet)
    machines = pick_many(open_host(connect), names or [], every=every, said=progress.warn)

    def end(domain: Any, instance: Any) -> None:
        with progress.task(f"stopping {instance.name}"):
            stop_machine(domain, instance, force=force, timeout=timeout)
        print(f"{instance.name} is off")

    each(machines, end, progress)


def delete(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME…",
            help="The machines, also as patterns ('job-*').",
            autocompletion=complete.machines,
            show_default=False,
        ),
    ] = None,
    every: All = False,
    connect: Connect = None,
    pool: PoolName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove machines with all that belongs to them: domain, disks, seed, NVRAM, serial log."""
    from armvm.errors import UsageError
    from armvm.provision.access import pool_name
    from armvm.provision.delete import assert_there
    from armvm.provision.delete import delete as delete_machine
    from armvm.provision.pick import is_pattern, pick_many
    from armvm.spec.names import check_machine_name

    connection, where = open_host(connect), pool_name(pool)
    plain = [name for name in names or [] if not is_pattern(name)]
    patterns = [name for name in names or [] if is_pattern(name)]
    if not names and not every:
        raise UsageError("no machine is named", hint="name the machines to remove, or use --all")
    for name in plain:
        check_machine_name(name)
    for name in plain:
        assert_there(connection, name, pool_name=where)
    if every or patterns:
        fitting = pick_many(
            connection,
            names if every and names else patterns,
            every=every,
            said=lambda text: print(f"warning: {text}", file=sys.stderr),
            unfinished=True,
        )
        plain += [one.name for _, one in fitting if one.name not in plain]
    if not plain:
        print("no machines", file=sys.stderr)
        return
    question = f"Remove {', '.join(plain)} with all data?"
    if not agreed(yes, question, f"this removes {', '.join(plain)} for good"):
        return
    for name in plain:
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
    from armvm.provision.wait import wait_ready

    connection = open_host(connect)
    name = pick(connection, name)[1].name
    wait_ready(connection, name, timeout=timeout, progress=progress_for(quiet))
    print(f"{name} is ready: armvm ssh {name}")
