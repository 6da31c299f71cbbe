"""Creating a machine: the one use case that writes the most, and undoes itself on failure.

The domain is defined first. libvirt gives a name to one domain only, so defining is what
decides between two creates of one name; the loser has touched nothing. A machine under way
carries its maker in its metadata until it is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from armvm import __version__
from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.base.signals import shielded
from armvm.guest.cloudinit.documents import compose
from armvm.guest.cloudinit.seed import SEED_ROOM, seed_image
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
from armvm.host.storage import pools, volumes
from armvm.host.storage.base_image import ensure_base
from armvm.host.xml import to_text
from armvm.images.model import Image, ImageSource
from armvm.provision.machine import fast, network
from armvm.provision.machine import plan as planning
from armvm.provision.machine.delete import forget_domain
from armvm.provision.machine.own_disk import assert_nobodys
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.undo import Undo
from armvm.provision.machine.unfinished import is_left_behind, myself
from armvm.settings.machine import Machine
from armvm.settings.verify import Verify

#: Makes the volume of a given name in a pool: a machine's overlay.
MakeDisk = Callable[[Pool, str], object]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where machines are made: an open connection, its facts, and a pool's name.

    ``verify`` is the weakest that may vouch for an image brought there, None for the strongest
    that its source offers.
    """

    connection: Connection
    facts: HostFacts
    pool: str = pools.DEFAULT_POOL
    verify: Verify | None = None


def make_plan(where: Where, machine: Machine, source: ImageSource) -> CreatePlan:
    """Look at the host and decide. Raises what planning raises, Conflict for a taken name."""
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
    network.check(connection, decided.spec)
    check_name(connection, machine.name)
    # Bad user-data is told now, not after the image was fetched.
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
    """Make the machine; any failure leaves nothing of it behind.

    *disk* makes its overlay from something else than *image*'s file, which then need not exist.

    *whole* false leaves its maker's name in the metadata: the caller has more to do, and should
    the process be killed before, the next one removes what it left.

    Raises Conflict, StorageError, DomainError and what libvirt's errors translate to.
    """
    connection, machine = where.connection, plan.machine
    planning.check_disk(machine, image.virtual_size)
    known = {"digest": image.digest, "size": str(image.size)}
    plan, boot = fast.with_kernel(plan, image, progress)
    record = replace(plan.record, image={**plan.record.image, **known})
    remove_leftovers(connection, machine.name, progress)
    pool = pools.ensure_pool(connection, where.pool, where.facts)
    xml = to_text(build(plan.spec, replace(record, creator=myself())))
    with Undo(progress) as undo:
        with shielded():
            domain = lifecycle.define(connection, xml, machine.name)
            undo.add(lambda: lifecycle.undefine(domain))
        assert_nobodys(connection, pool, machine.name)
        undo.add(lambda: volumes.delete_machine_volumes(pool, machine.name))
        _make_volumes(where, pool, plan, image, progress, disk)
        if boot is not None:
            fast.write_kernel(connection, pool, machine.name, boot)
        network.join(connection, where.facts, plan.spec, progress, undo, start=start)
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
    connection = where.connection
    machine, names = plan.machine, volumes.volume_names(plan.machine.name)
    # The name is ours since the domain is defined: volumes of that name are a dead machine's.
    volumes.delete_machine_volumes(pool, machine.name)
    documents = compose(machine, plan.identity, plan.record.user, system=plan.source.system)
    golden = plan.spec.memory_file is not None
    room = SEED_ROOM if golden else 0
    volumes.write_volume(connection, pool, names["seed"], seed_image(documents), size=room)
    if disk is not None:
        disk(pool, names["overlay"])
    else:
        from armvm.images.cache.store import Cache  # a clone of a golden needs none of it

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


def check_name(connection: Connection, name: str) -> None:
    """Raise Conflict when *name* is taken by more than a dead process's leftovers."""
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
    """Remove what a killed create of the same name has left."""
    try:
        domain = find_domain(connection, name)
        if not _is_leftover(domain):
            return
        progress.say(f"removing what an interrupted create of {name} left behind")
        # The volumes stay: another create may have been faster here, and made its own by now.
        # Whoever defines the domain removes those of a dead machine.
        forget_domain(observed(connection, domain))
    except NotFound:
        return  # no leftovers, or another process was faster


def _forward(instance: Instance) -> int | None:
    return instance.record.forward
