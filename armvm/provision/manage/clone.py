"""Clones a machine that is off: copies its disk and gives the clone its own identity.

As in `create`, the domain is defined first, because its name is the lock. The disk's overlay is
copied and keeps the same base. The seed has a new instance-id, so that cloud-init treats the clone
as a new machine.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import PurePosixPath

from armvm import __version__
from armvm.base.errors import Conflict
from armvm.base.progress import Progress
from armvm.base.signals import shielded
from armvm.guest.cloudinit.reseed import reidentified
from armvm.guest.cloudinit.seed import read_seed, seed_image
from armvm.guest.identity import Identity, new_identity, new_mac
from armvm.host.connection import Connection, Domain, Pool
from armvm.host.domain import instance as observing
from armvm.host.domain import lifecycle
from armvm.host.domain.copied_xml import Copy, copied
from armvm.host.domain.handle import find_machine
from armvm.host.domain.instance import Instance, find_domain, inactive_xml, instances, set_record
from armvm.host.domain.metadata import Record
from armvm.host.network.ssh_forward import choose_port
from armvm.host.storage import nvram, pools, transfer, volumes
from armvm.host.storage.volume_copy import duplicate
from armvm.host.xml import parse, to_text
from armvm.provision.golden.from_machine import find_original
from armvm.provision.machine import network
from armvm.provision.machine.create import Where, remove_leftovers
from armvm.provision.machine.own_disk import (
    assert_own_disk,
    clear_volumes,
    delete_machine_volumes,
    left_alone,
    own_volumes,
)
from armvm.provision.machine.undo import Undo
from armvm.provision.machine.unfinished import myself
from armvm.settings.machine import check_address
from armvm.settings.names import check_new_name


def clone(
    where: Where, source: str, new: str, progress: Progress, *, address: str | None = None
) -> Domain:
    """Create the machine *new* as a copy of *source*, leave it off, and return its domain.

    Reserves *address* for it on its first network. Does not change the source. On failure nothing
    is left behind. Raises NotFound, Conflict if the source is running or is started meanwhile, or
    the name or the address is taken, StorageError.
    """
    check_new_name(new)
    if address is not None:
        check_address(address)
    connection = where.connection
    assert_own_disk(observing.observe(find_domain(connection, source)))
    original = find_original(where, source).instance
    pool = pools.need_pool(connection, original.record.pool, source)
    remove_leftovers(connection, new, progress)
    if observing.domain_exists(connection, new):
        raise lifecycle.taken(new)
    identity = new_identity(new)
    if address is not None:
        mac = network.check(connection, where.facts, replace(original, name=new), address)
        identity = replace(identity, mac=mac or identity.mac)
    record = _record(connection, original, identity, address)
    xml = inactive_xml(find_domain(connection, source))
    directory, names = PurePosixPath(pools.pool_path(pool)), volumes.volume_names(new)
    theirs = volumes.volume_names(source)
    if volumes.find_volume(pool, theirs["seed"]) is None:
        raise Conflict(
            f"{source} has no cloud-init seed, so a clone would have its identity",
            hint=f"copy its disk, or create another machine: armvm create --name {new}",
        )
    more = _further_disks(pool, source, new)
    copy = Copy(
        name=new,
        uuid=identity.uuid,
        mac=identity.mac,
        record=replace(record, creator=myself()),
        paths={
            str(directory / old): str(directory / other)
            for old, other in [*((theirs[key], names[key]) for key in names), *more.items()]
        },
    )
    document = copied(xml, copy, new_mac)
    variables = nvram.place(connection, parse(xml), source)
    with Undo(progress) as undo:
        with shielded():
            domain = lifecycle.define(connection, to_text(document), new)
            undo.add(lambda: lifecycle.undefine(domain))
        clear_volumes(connection, pool, new)
        undo.add(lambda: delete_machine_volumes(pool, new))
        disk = volumes.need_volume(pool, theirs["overlay"])
        with left_alone(find_machine(connection, source), disk):
            _make_volumes(connection, pool, original, identity, new, progress)
        if variables is not None and volumes.find_volume(pool, names["nvram"]) is None:
            nvram.carry(connection, pool, document, variables, new)
            lifecycle.define(connection, to_text(document), new)
        made = observing.observe(domain)
        network.join(connection, where.facts, made, progress, undo, address=address, start=False)
        set_record(domain, record)
    return domain


def _further_disks(pool: Pool, source: str, new: str) -> dict[str, str]:
    """Return the volume names of the further disks that armvm made, with the clone's."""
    return {
        source + suffix: new + suffix
        for suffix in own_volumes(pool, source)
        if volumes.is_disk_of(source, source + suffix)
    }


def _record(
    connection: Connection, original: Instance, identity: Identity, address: str | None
) -> Record:
    ports = [one.record.forward or 0 for one in instances(connection)]
    return replace(
        original.record,
        version=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        host_key=" ".join(identity.host_key.public.split()[:2]),
        instance_id=identity.instance_id,
        forward=choose_port(ports) if original.network is None else None,
        settings={**original.record.settings, "ip": address},
        snapshots=(),
        fleet=None,
        ports=(),  # the host can forward a port to only one machine
    )


def _make_volumes(
    connection: Connection,
    pool: Pool,
    original: Instance,
    identity: Identity,
    new: str,
    progress: Progress,
) -> None:
    names = volumes.volume_names(new)
    theirs = volumes.volume_names(original.name)
    copies = {theirs[key]: names[key] for key in ("overlay", "kernel", "initrd", "nvram")}
    for old, copy in (copies | _further_disks(pool, original.name, new)).items():
        volume = volumes.find_volume(pool, old)
        if volume is None:
            continue
        size = volumes.physical_size(volume)
        pools.check_space(pool, volumes.allocation(volume))
        with progress.task(f"copying {volume.name()}", total=size) as task:
            duplicate(connection, pool, copy, volume, task.update)
    seed = volumes.need_volume(pool, theirs["seed"])
    files = read_seed(transfer.read(connection, seed))
    documents = reidentified(files, original.name, new, identity)
    volumes.write_volume(connection, pool, names["seed"], seed_image(documents))
