"""Making clones independent of their golden, so that it can be deleted.

Each clone's disk is moved onto what the golden's disk stands on itself. A clone that runs goes
on running; what it has of the golden's memory it keeps until it stops, also when the file's name
is gone. A failure or an interruption leaves each clone on its old disk or on its new one, which
read the same, and the golden where it was.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from armvm.base.errors import Conflict, NotFound
from armvm.base.progress import Progress
from armvm.host.connection import Connection, Domain, Pool
from armvm.host.domain.golden_domain import Golden, find_golden
from armvm.host.domain.instance import Instance, find_domain, instances, observe
from armvm.host.storage import block_copy, pools, volumes
from armvm.host.storage.base_image import backing_path, volumes_on
from armvm.provision.machine.unfinished import assert_whole


def flatten(connection: Connection, name: str, progress: Progress) -> list[str]:
    """Take all clones off the disk of the golden *name*, and return their names.

    Raises NotFound, Conflict for a clone that cannot be moved (nothing is begun then), and
    StorageError when the pool has not enough space.
    """
    golden = find_golden(connection, name)
    pool = pools.find_pool(connection, golden.mark.record.pool)
    if pool is None:
        return []
    clones = _clones(connection, pool, golden)
    overlay = volumes.find_volume(pool, Path(golden.overlay).name)
    if overlay is not None:
        pools.check_space(pool, volumes.allocation(overlay) * len(clones))
    base = None if overlay is None else backing_path(overlay)
    for instance in clones:
        with progress.task(f"moving the disk of {instance.name} off {name}") as task:

            def tell(done: int, end: int) -> None:
                task.update(text=f"{100 * done // end if end else 0}%")

            _move(connection, find_domain(connection, instance.name), base, tell)
    pools.check_space(pool, 0)  # libvirt reads the headers again
    return [instance.name for instance in clones]


def _move(
    connection: Connection, domain: Domain, base: str | None, tell: block_copy.OnBytes
) -> None:
    if observe(domain).running:
        block_copy.rebase(domain, base, tell)
        return
    with block_copy.held(connection, domain) as held:
        block_copy.rebase(held, base, tell)


def _clones(connection: Connection, pool: Pool, golden: Golden) -> list[Instance]:
    """Return the machines whose disks stand on a golden's; raise Conflict if one cannot move."""
    machines = {one.overlay: one for one in instances(connection)}
    directory = pools.pool_path(pool)
    found = []
    for volume in volumes_on(pool, Path(golden.overlay).name):
        instance = machines.get(f"{directory}/{volume}")
        if taken := volumes.snapshot_of(volume):
            owner, snapshot = taken
            raise Conflict(
                f"the snapshot {snapshot} of {owner} stands on {golden.name}",
                hint=f"armvm snapshot delete {owner} {snapshot}   comes first",
            )
        if instance is None:
            raise Conflict(
                f"the volume {volume} stands on {golden.name}, and is no machine's disk as it is",
                hint="a machine's external snapshot, or a rest: merge it (virsh blockcommit), or "
                f"remove it ({shlex.join(['virsh', 'vol-delete', '--pool', pool.name(), volume])})",
            )
        if instance.record.creator is not None and not instance.running:
            assert_whole(instance)
        if _has_snapshots(connection, instance):
            raise Conflict(
                f"{instance.name} has snapshots, which stand on {golden.name} too",
                hint=f"virsh snapshot-list {instance.name}, and snapshot-delete, come first",
            )
        found.append(instance)
    return found


def _has_snapshots(connection: Connection, instance: Instance) -> bool:
    try:
        return block_copy.snapshots(find_domain(connection, instance.name)) > 0
    except NotFound:
        return False  # removed in between
