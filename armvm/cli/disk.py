"""``disk list|add|grow|remove``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from armvm.base.progress import size_text
from armvm.cli import complete
from armvm.cli.context import agreed, open_host, print_json, print_rows, progress_for
from armvm.cli.options import Connect, Json, Name, OptionalName, Quiet

if TYPE_CHECKING:
    from armvm.provision.manage.disk import DiskDetails

app = typer.Typer(
    no_args_is_help=True,
    rich_help_panel="Machines",
    help="List, add, grow and remove the disks of a machine.",
)

DiskName = Annotated[
    str,
    typer.Argument(
        metavar="DISK",
        help="Name of the disk, or libvirt's: data, vdc.",
        autocompletion=complete.disks,
    ),
]


@app.command("list", epilog="Example: armvm disk list arm64-01 --json")
def list_(name: OptionalName = None, connect: Connect = None, json: Json = False) -> None:
    """List a machine's disks."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.disk import listed

    found = listed(pick(open_host(connect), name))
    if json:
        print_json(found)
        return
    rows = [
        [
            one.name,
            one.target,
            _size(one.size),
            _size(one.allocated),
            "armvm" if one.made else "attached",
            ("" if one.attached else "(at the next start) ") + (one.file or "-"),
        ]
        for one in found
    ]
    print_rows(["DISK", "TARGET", "SIZE", "ALLOCATED", "MADE BY", "FILE"], rows)


@app.command(
    epilog="Examples:\n\n  armvm disk add arm64-01 20G\n\n"
    "  armvm disk add arm64-01 size=20G,name=data,format=raw\n\n"
    "  armvm disk add arm64-01 /srv/images/data.qcow2"
)
def add(
    name: Name,
    disk: Annotated[
        str,
        typer.Argument(
            metavar="SIZE|FILE|KEY=VALUE,…",
            help="Size of a new disk, an existing file, or: size=, file=, name=, format=.",
        ),
    ],
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Add a disk to a machine, at once if it runs.

    A new disk is a volume in the machine's pool, qcow2 unless you give format=raw, and is deleted
    with the machine. An existing file or volume is attached and never deleted. The guest has the
    disk as /dev/disk/by-id/virtio-NAME; it is not formatted or mounted.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.disk import add as add_disk
    from armvm.settings.disks import read_disk

    made = add_disk(pick(open_host(connect), name), read_disk(disk))
    if json:
        print_json(made)
        return
    print(f"{name} has the disk {made.name} ({_size(made.size)}): {_path(made)}")


@app.command(epilog="Example: armvm disk grow arm64-01 data 40G")
def grow(
    name: Name,
    disk: DiskName,
    size: Annotated[str, typer.Argument(metavar="SIZE", help="The new size: 40G.")],
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Grow a disk, at once if the machine runs. It cannot shrink.

    The guest sees the new size; its partitions and file systems stay as they are. For the root
    disk, use 'armvm resize'.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.disk import grow as grow_disk
    from armvm.settings.disks import disk_size

    grown = grow_disk(pick(open_host(connect), name), disk, disk_size(size))
    if json:
        print_json(grown)
        return
    print(f"{grown.name} of {name} has {_size(grown.size)}: grow its file system in the guest")


@app.command(
    epilog="Examples:\n\n  armvm disk remove arm64-01 data --yes\n\n"
    "  armvm disk remove arm64-01 data --keep\n\n  armvm disk remove arm64-01 cdrom --yes"
)
def remove(
    name: Name,
    disk: DiskName,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the file of a disk that armvm made.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    connect: Connect = None,
    quiet: Quiet = False,
) -> None:
    """Remove a disk from a machine, at once if it runs.

    Deletes the file of a disk that armvm made, unless you give --keep; the file of an attached
    disk stays. The root disk and the seed cannot be removed.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.disk import check_removable
    from armvm.provision.manage.disk import remove as remove_disk

    machine = pick(open_host(connect), name)
    found, made = check_removable(machine, disk)
    if (
        made
        and not keep
        and not agreed(
            yes,
            f"Remove the disk {found.name} of {name} with all data?",
            f"this permanently deletes {found.file}",
        )
    ):
        return
    progress = progress_for(quiet)
    done = remove_disk(machine, found, keep=keep, progress=progress)
    if done.later:
        progress.warn(f"the guest did not release {done.name}: it stays until {name} is stopped")
    print(f"{done.name} removed from {name}")
    if done.kept is not None:
        print(f"kept {done.kept}")


def _size(count: int | None) -> str:
    return "-" if count is None else size_text(count)


def _path(made: DiskDetails) -> str:
    return f"/dev/disk/by-id/virtio-{made.name}"
