"""Create a machine, and undo everything on failure.

The domain is defined first. libvirt allows each name only once, so of two creates with the same
name only one can define its domain, and the other fails before it changes anything. Until the
machine is complete, its metadata names the process that creates it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from armvm import __version__
from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.base.signals import shielded
from armvm.guest.identity import new_identity
from armvm.host import confinement
from armvm.host.connection import Connection, Domain, Pool
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import build
from armvm.host.domain.handle import observed
from armvm.host.domain.instance import Instance, find_domain, instances, observe, set_record
from armvm.host.facts import HostFacts
from armvm.host.memory import route
from armvm.host.network.ssh_forward import ensure_forward
from armvm.host.storage import pools, transfer, volumes
from armvm.host.xml import to_text
from armvm.images.model import FromImage, Image, ImageSource
from armvm.provision.machine import network
from armvm.provision.machine import plan as planning
from armvm.provision.machine.delete import forget_domain
from armvm.provision.machine.own_disk import clear_volumes, delete_machine_volumes
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.undo import Undo
from armvm.provision.machine.unfinished import is_left_behind, myself
from armvm.settings.machine import Machine
from armvm.settings.verify import Verify

#: Creates a machine's overlay as a volume of the given name in a pool.
MakeDisk = Callable[[Pool, str], object]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where machines are created: an open connection, the facts of its host, and a pool's name.

    ``verify`` is the minimum verification for images; None requires the strongest that an image's
    source offers.
    """

    connection: Connection
    facts: HostFacts
    pool: str = pools.DEFAULT_POOL
    verify: Verify | None = None


def make_plan(where: Where, machine: Machine, source: ImageSource) -> CreatePlan:
    """Return the plan for a machine on this host.

    Does not look whether the name is taken: callers that can wait for an image call `check_name`
    first, and libvirt refuses a second domain in any case. Raises the errors of planning.
    """
    connection, facts = where.connection, where.facts
    existing = pools.find_pool(connection, where.pool)
    if existing is None and where.pool != pools.DEFAULT_POOL:
        pools.ensure_pool(connection, where.pool, facts)  # raises NotFound, with a hint
    path = pools.pool_path(existing) if existing else pools.default_pool_path(facts)
    decided = planning.plan(
        machine,
        source,
        facts,
        new_identity(machine.name),
        pool=where.pool,
        pool_path=path,
        version=__version__,
        now=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        taken_ports=[port for port in map(_forward, instances(connection)) if port],
    )
    mac = network.check(connection, facts, decided.spec, machine.ip)
    if mac is not None:
        decided = planning.with_mac(decided, mac)
    if machine.disks:
        from armvm.provision.machine.disks import plan_disks

        decided = plan_disks(connection, decided)
    if machine.seeded and (machine.user_data is not None or isinstance(source, FromImage)):
        # Report invalid user-data now, before the image is fetched.
        from armvm.guest.cloudinit.documents import compose

        compose(machine, decided.identity, decided.record.user, system=source.system)
    return decided


def apply(
    where: Where,
    plan: CreatePlan,
    image: Image,
    *,
    start: bool,
    progress: Progress,
    whole: bool = True,
    disk: MakeDisk | None = None,
) -> Domain:
    """Create the machine and return its domain; on failure nothing is left behind.

    With *disk*, that function creates the overlay, and *image*'s file need not exist.

    If *whole* is false, the metadata keeps naming this process, because the caller has more to do.
    If the process is then killed, a later armvm removes the machine.

    Raises Conflict, StorageError, DomainError and the translations of libvirt's errors.
    """
    from armvm.provision.machine import fast  # a clone of a golden needs none of it

    connection, machine = where.connection, plan.machine
    planning.check_disk(machine.disk, image.virtual_size)
    known = {"digest": image.digest, "size": str(image.size)}
    # A disk that the caller makes may have another kernel than the image.
    plan, boot = (plan, None) if disk else fast.with_kernel(plan, image, progress)
    record = replace(plan.record, image={**plan.record.image, **known})
    remove_leftovers(connection, machine.name, progress)
    pool = pools.ensure_pool(connection, where.pool, where.facts)
    xml = to_text(build(plan.spec, replace(record, creator=myself())))
    with Undo(progress) as undo:
        with shielded():
            domain = lifecycle.define(connection, xml, machine.name)
            undo.add(lambda: lifecycle.undefine(domain))
        # The domain is defined, so the name is ours. Volumes of that name are of a dead machine.
        clear_volumes(connection, pool, machine.name)
        undo.add(lambda: delete_machine_volumes(pool, machine.name))
        _make_volumes(where, pool, plan, image, progress, disk)
        if boot is not None:
            fast.write_kernel(connection, pool, machine.name, boot)
        network.join(
            connection, where.facts, plan.spec, progress, undo, address=machine.ip, start=start
        )
        if start:
            undo.add(lambda: lifecycle.destroy(domain))
            lifecycle.start(domain)
            if record.forward is not None:
                record = replace(record, forward=ensure_forward(domain, record.forward, ()))
        set_record(domain, record if whole else replace(record, creator=myself()))
    return domain


def _make_volumes(
    where: Where,
    pool: Pool,
    plan: CreatePlan,
    image: Image,
    progress: Progress,
    disk: MakeDisk | None,
) -> None:
    from armvm.guest.cloudinit.documents import compose
    from armvm.guest.cloudinit.seed import SEED_ROOM, seed_image

    connection = where.connection
    machine, names = plan.machine, volumes.volume_names(plan.machine.name)
    golden = plan.spec.memory_file is not None
    if machine.seeded:
        documents = compose(machine, plan.identity, plan.record.user, system=plan.source.system)
        room = SEED_ROOM if golden else 0
        volumes.write_volume(connection, pool, names["seed"], seed_image(documents), size=room)
    if machine.ignition is not None:
        volumes.write_volume(connection, pool, names["ignition"], machine.ignition)
    if machine.disks:
        from armvm.provision.machine.disks import create_disks

        create_disks(pool, machine.name, machine.disks)
    if disk is not None:
        disk(pool, names["overlay"])
    elif machine.cdrom is not None:
        volumes.create_disk(pool, names["overlay"], machine.disk, "qcow2")
        _write_medium(connection, pool, names["cdrom"], machine.cdrom, progress)
    else:
        from armvm.host.storage.base_image import ensure_base
        from armvm.images.cache.store import Cache

        base = ensure_base(
            *(connection, pool, image.digest, image.path),
            progress=progress,
            lasting=Cache.default().holds(image.path),
        )
        volumes.create_overlay(pool, names["overlay"], base, machine.disk)
    if golden and plan.spec.memory_route == route.COW:
        size = machine.memory_mib << 20
        volume = volumes.create_hole(pool, names["memory"], size, where.facts.qemu_owner)
        confinement.label(volume.path(), where.facts)


def _write_medium(
    connection: Connection, pool: Pool, name: str, path: Path, progress: Progress
) -> None:
    """Copy an installer's ISO to the pool, where QEMU may read it, on remote hosts too."""
    size = path.stat().st_size
    pools.check_space(pool, size)
    volume = volumes.create_empty(pool, name)
    with progress.task(f"copying {path.name} to the pool {pool.name()}", total=size) as task:
        transfer.upload_file(connection, volume, path, task.update)


def check_name(connection: Connection, name: str) -> None:
    """Raise Conflict if *name* is taken, unless by the leftovers of a dead process."""
    try:
        domain = find_domain(connection, name)
    except NotFound:
        return
    if not _is_leftover(domain):
        raise lifecycle.taken(name)


def _is_leftover(domain: Domain) -> bool:
    try:
        return is_left_behind(observe(domain))
    except NotFound:
        return False


def remove_leftovers(connection: Connection, name: str, progress: Progress) -> None:
    """Remove what a killed create of the same name left behind."""
    try:
        domain = find_domain(connection, name)
        if not _is_leftover(domain):
            return
        progress.say(f"removing what an interrupted create of {name} left behind")
        # Keep the volumes: another create may have defined the domain and created its own by now.
        # The create that defines the domain removes the volumes of a dead machine.
        forget_domain(observed(connection, domain))
    except NotFound:
        return  # no leftovers, or another process was faster


def _forward(instance: Instance) -> int | None:
    return instance.record.forward
