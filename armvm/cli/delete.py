"""``delete``: removes machines with their disks."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.base.progress import Plain
from armvm.cli import complete
from armvm.cli.context import (
    agreed,
    open_host,
)
from armvm.cli.options import (
    All,
    Connect,
    PoolName,
)
from armvm.settings.clouds import Cloud


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm delete arm64-01 --yes\n\n  armvm delete 'job-*'",
    )(delete)


def delete(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME…",
            help="Names or patterns ('job-*').",
            autocompletion=complete.machines,
            show_default=False,
        ),
    ] = None,
    every: All = False,
    connect: Connect = None,
    cloud: Cloud | None = None,
    pool: PoolName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete machines with their domain, disks, seed, NVRAM and serial log.

    Disk files that were attached (disk add FILE, create --add-disk FILE) are kept.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.refuse(cloud, "--pool", pool, "it is for libvirt hosts")
        on_cloud.delete(cloud, names or [], every=every, yes=yes)
        return
    from armvm.base.errors import UsageError
    from armvm.provision.connect import pool_name
    from armvm.provision.machine.delete import assert_there
    from armvm.provision.machine.delete import delete as delete_machine
    from armvm.provision.machine.pick import is_pattern, pick_many
    from armvm.provision.manage.disk import kept_files
    from armvm.settings.names import check_machine_name

    connection, where = open_host(connect), pool_name(pool)
    plain = [name for name in names or [] if not is_pattern(name)]
    patterns = [name for name in names or [] if is_pattern(name)]
    if not names and not every:
        raise UsageError("NAME is required", hint="name the machines to delete, or use --all")
    for name in plain:
        check_machine_name(name)
    for name in plain:
        assert_there(connection, name, pool_name=where)
    if every or patterns:
        fitting = pick_many(
            connection,
            names if every and names else patterns,
            every=every,
            said=Plain(sys.stderr).warn,
            unfinished=True,
        )
        plain += [one.name for one in fitting if one.name not in plain]
    if not plain:
        print("no machines found", file=sys.stderr)
        return
    question = f"Delete {', '.join(plain)} with all data?"
    if not agreed(yes, question, f"this permanently deletes {', '.join(plain)}"):
        return
    for name in plain:
        kept = kept_files(connection, name)
        delete_machine(connection, name, pool_name=where)
        print(f"{name} deleted")
        for file in kept:
            print(f"kept {file}")
