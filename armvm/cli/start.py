"""``start``: starts machines and waits until they are ready."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli.context import left_running, open_host, progress_for, up
from armvm.cli.options import (
    All,
    Connect,
    OptionalNames,
    Quiet,
    Timeout,
)
from armvm.settings.clouds import Cloud


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm start arm64-01\n\n  armvm start 'job-*' --no-wait",
    )(start)


def start(
    names: OptionalNames = None,
    every: All = False,
    connect: Connect = None,
    cloud: Cloud | None = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", help="Wait until you can log in. Default: wait.", show_default=False
        ),
    ] = True,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Start machines, and wait until you can log in.

    --all and patterns start the machines that are off. A machine keeps running if it is not ready
    in time (exit 11), if its cloud-init failed or if it rejects armvm's key (exit 12). All keep
    running if you press Ctrl-C.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.start(cloud, names or [], every=every, wait=wait, timeout=timeout, quiet=quiet)
        return
    from armvm.provision.machine.pick import is_pattern, pick_many
    from armvm.provision.manage.power import start_all

    connection, progress = open_host(connect), progress_for(quiet)
    chosen = pick_many(connection, names or [], every=every, said=progress.warn)
    if every or any(map(is_pattern, names or [])):
        chosen = [one for one in chosen if not one.running or one.name in (names or [])]

    def tell(name: str, ready: bool) -> None:
        print(up(name, ready=ready), flush=True)

    started = start_all(chosen, progress)
    if not wait:
        for one in started.instances:
            print(f"{one.name} is starting\n  armvm wait {one.name}")
    else:
        with left_running([one.name for one in started.instances]):
            started.wait(connection, timeout=timeout, progress=progress, tell=tell)
    started.assert_all()
