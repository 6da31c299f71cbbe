"""``mount`` and ``umount``: mounts host directories in a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_host, print_json, print_rows, progress_for
from armvm.cli.options import Connect, Json, Quiet

Place = Annotated[
    str,
    typer.Argument(
        metavar="NAME:GUESTDIR",
        help="The machine, and a whole path in it.",
        autocompletion=complete.machine_paths,
    ),
]


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command(
        rich_help_panel="Login",
        epilog="Examples:\n\n  armvm mount ./src arm64-01:/mnt/src --restart\n\n"
        "  armvm mount --list",
    )(mount)
    app.command(rich_help_panel="Login", epilog="Example: armvm umount arm64-01:/mnt/src")(umount)


def mount(
    source: Annotated[
        str | None, typer.Argument(metavar="[HOSTDIR]", help="Directory on the host.")
    ] = None,
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME:GUESTDIR]",
            help="The machine, and a whole path in it.",
            autocompletion=complete.machine_paths,
        ),
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Mount read-only in the guest; the guest's root can undo this."
        ),
    ] = False,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="virtiofs tag. Default: generated.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Restart the machine if its memory is not shared yet.")
    ] = False,
    allow_root: Annotated[
        bool,
        typer.Option(
            "--allow-root",
            help="Allow the guest's root to act as the host's root in this directory "
            "(qemu:///system).",
        ),
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", "-l", help="List mounted directories: mount --list [NAME].")
    ] = False,
    connect: Connect = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Mount a host directory in a running machine by virtiofs, now and after each start.

    The first directory requires a restart, which shares the machine's memory with the host; later
    ones do not. A machine with such a directory cannot be saved or snapshotted with its memory.

    With qemu:///session, the machine's user acts as you in the directory, and all other guest
    users, including root, act as nobody. With qemu:///system, users keep their ids, so the guest's
    root is the host's root in this directory; --allow-root confirms that.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.machine.pick import everything, pick
    from armvm.provision.manage import mount as shares

    connection = open_host(connect)
    if list_:
        if place is not None:
            raise UsageError("--list accepts only a machine name", hint="armvm mount --list [NAME]")
        rows = shares.listed(
            [pick(connection, source)] if source is not None else everything(connection)
        )
        if json:
            print_json(rows)
        else:
            cells = [
                [row.machine, row.target, row.source, "ro" if row.read_only else "rw"]
                for row in rows
            ]
            print_rows(["MACHINE", "GUESTDIR", "HOSTDIR", "MODE"], cells)
        return
    if source is None or place is None:
        raise UsageError(
            "HOSTDIR and NAME:GUESTDIR are required", hint="armvm mount DIR NAME:/mnt/src"
        )
    name, target = shares.read_place(place)
    machine = pick(connection, name)
    share = shares.wanted_share(connection, source, target, tag=tag, read_only=read_only)
    progress = progress_for(quiet)
    shares.mount(
        machine,
        share,
        restart=restart,
        allow_root=allow_root,
        progress=progress,
    )
    if json:
        print_json([shares.describe(machine.instance, share, attached=True)])
    else:
        print(f"{share.source} mounted at {name}:{share.target}")


def umount(place: Place, connect: Connect = None, quiet: Quiet = False) -> None:
    """Unmount a host directory in a machine and remove it from the machine."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage import mount as shares

    name, target = shares.read_place(place)
    share = shares.umount(pick(open_host(connect), name), target, progress_for(quiet))
    print(f"{share.source} unmounted from {name}")
