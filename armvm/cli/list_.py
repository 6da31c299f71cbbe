"""``list``: lists machines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import (
    open_host,
    print_json,
    print_rows,
    short_reference,
)
from armvm.cli.on import cloud_on, refuse_both, uri_on
from armvm.cli.options import (
    Connect,
    Json,
)

if TYPE_CHECKING:
    from armvm.provision.manage.machines import ListedMachine

_COLUMNS = ["NAME", "STATE", "CPUS", "MIB", "IMAGE", "NETWORK", "SSH"]


_EXAMPLES = """Examples:

  armvm list --json

  armvm list --on all"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list", rich_help_panel="Machines", epilog=_EXAMPLES)(list_)


def list_(
    connect: Connect = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="HOST",
            help="Host or cloud to use: a name in [hosts] or [clouds] of config.toml, "
            "several hosts (a,b), or all hosts. Default: $ARMVM_ON.",
            autocompletion=complete.hosts_and_clouds,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List machines created by armvm.

    With --on all or several hosts, armvm asks them at the same time. It lists the machines of
    those that answer within 10 seconds; if one does not, the exit code is 6.
    """
    from armvm.settings.hosts import ALL

    if on is not None and (on == ALL or "," in on):
        _list_on(on, connect, json)
        return
    cloud = cloud_on(on, connect)
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.list_(cloud, json)
        return
    from armvm.provision.manage.machines import overviews

    rows = overviews(open_host(connect if on is None else uri_on(on, connect, "clouds")))
    if json:
        print_json(rows)
    elif not rows:
        print("no machines found: create one with armvm create", file=sys.stderr)
    else:
        print_rows(_COLUMNS, [_cells(row) for row in rows])


def _list_on(on: str, connect: str | None, json: bool) -> None:
    """List the machines of several hosts."""
    from armvm.base.paths import config_files
    from armvm.provision.fleet.hosts import TIMEOUT, chosen, machines, no_answer
    from armvm.settings.hosts import ALL

    refuse_both(connect)
    hosts = chosen([] if on == ALL else on.split(","), config_files())
    rows, down = machines(hosts, TIMEOUT)
    if json:
        print_json(rows)
    elif rows:
        print_rows(["HOST", *_COLUMNS], [[row.on or "", *_cells(row)] for row in rows])
    if down:
        raise no_answer(list(down), len(hosts), down)
    if not rows and not json:
        print("no machines found: create one with armvm create --on HOST", file=sys.stderr)


def _cells(row: ListedMachine) -> list[str]:
    return [
        row.name,
        row.state,
        str(row.cpus),
        str(row.memory_mib),
        short_reference(row.image),
        ",".join(row.networks) or row.network,
        f"{row.ssh} via {row.via}" if row.via else row.ssh or "-",
    ]
