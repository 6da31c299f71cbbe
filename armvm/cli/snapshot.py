"""``snapshot create|list|revert|delete``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.base.progress import size_text
from armvm.cli import complete
from armvm.cli.context import agreed, open_host, print_json, print_rows, progress_for
from armvm.cli.options import Connect, Json, Name, OptionalName, Quiet

app = typer.Typer(
    no_args_is_help=True,
    rich_help_panel="Machines",
    help="Snapshots of a machine's disk, to go back to.",
)

SnapshotName = Annotated[
    str,
    typer.Argument(metavar="SNAPSHOT", help="One of its own.", autocompletion=complete.snapshots),
]
_LOSS = "this loses data for good"
_HOW = {"off": "while it was off", "frozen": "while it ran", "running": "as after a power cut"}


@app.command(epilog="Example: armvm snapshot create arm64-01 before-upgrade")
def create(
    name: Name,
    snapshot: Annotated[
        str | None,
        typer.Argument(metavar="[SNAPSHOT]", help="Its name. Default: the next free snap-NN."),
    ] = None,
    connect: Connect = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take a snapshot of a machine's disk, off or running; its memory is in none.

    It is a copy of what the machine has written, and takes as much space. The disk of a running
    machine stands still meanwhile (the guest does not), with its file systems frozen for a moment
    by the guest agent; without an agent the snapshot is as after a power cut. virsh knows none of
    these: libvirt takes no snapshots beside UEFI firmware that it could go back to.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.snapshot import create as create_snapshot
    from armvm.provision.manage.snapshot import describe

    connection = open_host(connect)
    made = create_snapshot(connection, *pick(connection, name), snapshot, progress_for(quiet))
    if json:
        found = describe(connection, pick(connection, name)[1])
        print_json(next(one for one in found if one.name == made.name))
    else:
        print(f"{made.name} is the disk of {name} {_HOW[made.state]}")


@app.command("list", epilog="Example: armvm snapshot list arm64-01 --json")
def list_(name: OptionalName = None, connect: Connect = None, json: Json = False) -> None:
    """List a machine's snapshots, the oldest first."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.snapshot import describe

    connection = open_host(connect)
    _, instance = pick(connection, name)
    found = describe(connection, instance)
    if json:
        print_json(found)
        return
    if not found:
        print(f"none: armvm snapshot create {instance.name} takes one", file=sys.stderr)
        return
    rows = [
        [
            one.name,
            one.created,
            _HOW.get(one.state, "-"),
            *("gone" if size is None else size_text(size) for size in (one.disk, one.size)),
        ]
        for one in found
    ]
    print_rows(["NAME", "TAKEN", "HOW", "DISK", "SIZE"], rows)


@app.command(epilog="Example: armvm snapshot revert arm64-01 before-upgrade --yes")
def revert(
    name: Name,
    snapshot: SnapshotName,
    connect: Connect = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    quiet: Quiet = False,
) -> None:
    """Put a machine's disk back as it was; what was written since is lost. It must be off.

    vCPUs, memory and UEFI variables stay as they are; a disk that has grown since is as small as
    it was. The snapshot stays.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.snapshot import find
    from armvm.provision.manage.snapshot import revert as revert_snapshot

    connection = open_host(connect)
    domain, instance = pick(connection, name)
    find(instance, snapshot)
    if not agreed(yes, f"Lose what {name} wrote since {snapshot}?", _LOSS):
        return
    revert_snapshot(connection, domain, instance, snapshot, progress_for(quiet))
    print(f"the disk of {name} is as in {snapshot}")


@app.command(epilog="Example: armvm snapshot delete arm64-01 before-upgrade --yes")
def delete(
    name: Name,
    snapshot: SnapshotName,
    connect: Connect = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a snapshot; the machine's disk stays as it is, and it may run."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.snapshot import delete as delete_snapshot
    from armvm.provision.manage.snapshot import find

    connection = open_host(connect)
    domain, instance = pick(connection, name)
    find(instance, snapshot)
    if not agreed(yes, f"Remove the snapshot {snapshot} of {name}?", _LOSS):
        return
    delete_snapshot(connection, domain, instance, snapshot)
    print(f"{snapshot} is gone")
