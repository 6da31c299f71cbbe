"""``snapshot create|list|revert|delete``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.base.progress import size_text
from armvm.cli import complete
from armvm.cli.context import agreed, open_host, print_json, print_rows, progress_for
from armvm.cli.options import Connect, Json, Name, OptionalName, Quiet
from armvm.settings.clouds import Cloud

app = typer.Typer(
    no_args_is_help=True,
    rich_help_panel="Machines",
    help="Take snapshots of a machine's disk and revert to them.",
)

SnapshotName = Annotated[
    str,
    typer.Argument(
        metavar="SNAPSHOT", help="Name of the snapshot.", autocompletion=complete.snapshots
    ),
]
_LOSS = "this permanently deletes data"
_HOW = {"off": "machine off", "frozen": "file systems frozen", "running": "not frozen"}


@app.command(epilog="Example: armvm snapshot create arm64-01 before-upgrade")
def create(
    name: Name,
    snapshot: Annotated[
        str | None,
        typer.Argument(metavar="[SNAPSHOT]", help="Name. Default: the next free snap-NN."),
    ] = None,
    connect: Connect = None,
    cloud: Cloud | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take a snapshot of a machine's disk, without its memory. The machine may run.

    A snapshot copies the data that the machine has written and takes that much space. If the
    machine runs, the guest agent freezes its file systems for a moment. Without an agent the
    snapshot is like a disk after a power failure. virsh does not list these snapshots: libvirt
    cannot revert snapshots of machines with UEFI firmware.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.snapshot_create(cloud, name, snapshot, json=json, quiet=quiet)
        return
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.snapshot import create as create_snapshot
    from armvm.provision.manage.snapshot import describe

    connection = open_host(connect)
    made = create_snapshot(pick(connection, name), snapshot, progress_for(quiet))
    if json:
        found = describe(connection, pick(connection, name).instance)
        print_json(next(one for one in found if one.name == made.name))
    else:
        print(f"snapshot {made.name} of {name} created ({_HOW[made.state]})")


@app.command("list", epilog="Example: armvm snapshot list arm64-01 --json")
def list_(
    name: OptionalName = None,
    connect: Connect = None,
    cloud: Cloud | None = None,
    json: Json = False,
) -> None:
    """List a machine's snapshots, the oldest first."""
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.snapshot_list(cloud, name, json=json)
        return
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.snapshot import describe

    connection = open_host(connect)
    instance = pick(connection, name).instance
    found = describe(connection, instance)
    if json:
        print_json(found)
        return
    if not found:
        print(
            f"no snapshots found: take one with armvm snapshot create {instance.name}",
            file=sys.stderr,
        )
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
    cloud: Cloud | None = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    quiet: Quiet = False,
) -> None:
    """Revert a machine's disk to a snapshot. Later changes are lost. The machine must be off.

    vCPUs, memory and UEFI variables do not change. A disk that was enlarged since gets its old
    size back. The snapshot is kept.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.snapshot_revert(cloud, name, snapshot, yes=yes, quiet=quiet)
        return
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.snapshot import find
    from armvm.provision.manage.snapshot import revert as revert_snapshot

    connection = open_host(connect)
    machine = pick(connection, name)
    find(machine.instance, snapshot)
    if not agreed(yes, f"Discard everything {name} wrote since {snapshot}?", _LOSS):
        return
    revert_snapshot(machine, snapshot, progress_for(quiet))
    print(f"{name} reverted to {snapshot}")


@app.command(epilog="Example: armvm snapshot delete arm64-01 before-upgrade --yes")
def delete(
    name: Name,
    snapshot: SnapshotName,
    connect: Connect = None,
    cloud: Cloud | None = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a snapshot. The machine's disk does not change; the machine may run."""
    if cloud is not None:
        from armvm.cli import on_cloud

        on_cloud.snapshot_delete(cloud, name, snapshot, yes=yes)
        return
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.snapshot import delete as delete_snapshot
    from armvm.provision.manage.snapshot import find

    connection = open_host(connect)
    machine = pick(connection, name)
    find(machine.instance, snapshot)
    if not agreed(yes, f"Delete snapshot {snapshot} of {name}?", _LOSS):
        return
    delete_snapshot(machine, snapshot)
    print(f"snapshot {snapshot} deleted")
