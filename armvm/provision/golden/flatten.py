"""Makes clones independent of their golden, so that it can be deleted.

Each clone's disk is rebased onto the backing file of the golden's disk. A running clone keeps
running. It maps the golden's memory until it stops, even after the file is deleted. After a failure
or an interruption, each clone has its old or its new backing file, which read the same, and the
golden is unchanged.
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
from armvm.provision.golden import pool as ready
from armvm.provision.machine.unfinished import assert_whole


def flatten(connection: Connection, name: str, progress: Progress) -> list[str]:
    """Make all clones independent of the golden *name*, and return their names.

    Raises NotFound, Conflict if a clone cannot be moved (then none is changed), and StorageError
    if the pool does not have enough space.
    """
    golden = find_golden(connection, name)
    if golden.mark.pool:
        ready.remove(connection, golden)
    pool = pools.find_pool(connection, golden.mark.record.pool)
    if pool is None:
        return []
    clones = _clones(connection, pool, golden)
    overlay = volumes.find_volume(pool, Path(golden.overlay).name)
    if overlay is not None:
        pools.check_space(pool, volumes.allocation(overlay) * len(clones))
    base = None if overlay is None else backing_path(overlay)
    for instance in clones:
        with progress.task(f"detaching the disk of {instance.name} from {name}") as task:

            def tell(done: int, end: int) -> None:
                task.update(text=f"{100 * done // end if end else 0}%")

            _move(connection, find_domain(connection, instance.name), base, tell)
    pools.check_space(pool, 0)  # makes libvirt reread the headers
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
    """Return the machines whose disks use a golden's. Raises Conflict if one cannot move."""
    machines = {one.overlay: one for one in instances(connection)}
    directory = pools.pool_path(pool)
    found = []
    for volume in volumes_on(pool, Path(golden.overlay).name):
        instance = machines.get(f"{directory}/{volume}")
        if taken := volumes.snapshot_of(volume):
            owner, snapshot = taken
            raise Conflict(
                f"snapshot {snapshot} of {owner} uses the disk of {golden.name}",
                hint=f"delete it first: armvm snapshot delete {owner} {snapshot}",
            )
        if instance is None:
            raise Conflict(
                f"volume {volume} uses the disk of {golden.name}, but no machine uses it as its "
                "current disk",
                hint="if it belongs to an external snapshot, merge it (virsh blockcommit); if it "
                "is left over, remove it: "
                f"{shlex.join(['virsh', 'vol-delete', '--pool', pool.name(), volume])}",
            )
        if instance.record.creator is not None and not instance.running:
            assert_whole(instance)
        if _has_snapshots(connection, instance):
            raise Conflict(
                f"{instance.name} has snapshots that also use the disk of {golden.name}",
                hint=f"delete them first: virsh snapshot-list {instance.name}, then virsh "
                f"snapshot-delete {instance.name} SNAPSHOT",
            )
        found.append(instance)
    return found


def _has_snapshots(connection: Connection, instance: Instance) -> bool:
    try:
        return block_copy.snapshots(find_domain(connection, instance.name)) > 0
    except NotFound:
        return False  # the machine was removed just now
