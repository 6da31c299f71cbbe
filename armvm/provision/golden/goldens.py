"""List, show, verify and delete goldens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict, cast

from armvm.base.errors import Conflict, NotFound, StorageError
from armvm.base.result import (
    Cpus,
    Doc,
    Fingerprint,
    MacAddress,
    MachineName,
    MemoryMib,
    UtcTime,
)
from armvm.base.signals import shielded
from armvm.guest.identity import fingerprint
from armvm.host.connection import Connection, Pool
from armvm.host.domain import lifecycle
from armvm.host.domain.golden_domain import Golden, find_golden, goldens
from armvm.host.domain.instance import domain_names, find_domain, instances
from armvm.host.domain.metadata import ImageRecord
from armvm.host.memory import route as memory
from armvm.host.storage import pools, volumes
from armvm.host.storage.base_image import volumes_on
from armvm.images.trust.provenance import of_record
from armvm.provision.golden import pool as ready
from armvm.provision.golden.choose import fits, in_use, unusable
from armvm.provision.golden.fit import ground_in
from armvm.provision.machine.create import Where
from armvm.provision.machine.known_hosts import forget_host
from armvm.provision.machine.own_disk import delete_machine_volumes
from armvm.settings.names import next_name


class _Known(TypedDict):
    image: Annotated[str, Doc("The image's digest, or the machine whose disk was copied.")]
    cpus: Cpus
    memory_mib: MemoryMib
    disk: Annotated[int, Doc("Size of the root disk in bytes.")]
    cpu: Annotated[str, Doc("The CPU's model or mode.")]
    headless: Annotated[bool, Doc("Whether it lacks video and input devices.")]
    autologin: Annotated[bool, Doc("Whether the console logs in automatically.")]
    user: Annotated[str, Doc("The guest's user.")]
    network: Annotated[
        str,
        Doc(
            "The kind of each network.",
            pattern=r"^(user|libvirt)(,(user|libvirt))*$",
        ),
    ]
    pool: Annotated[str, Doc("The storage pool.")]


class Shape(_Known, total=False):
    """The settings that a machine must have to be created from the golden."""

    motd: Annotated[bool, Doc("false: the message of the day is off.")]
    fast: Annotated[bool, Doc("true: made with --fast.")]
    presets: Annotated[list[str], Doc("The presets whose packages are installed.")]
    packages: Annotated[list[str], Doc("The packages that `golden create --install` added.")]


#: Bytes that each volume takes; None if the volume does not exist.
Volumes = Annotated[
    dict[str, Annotated[int | None, Doc("Bytes; null: the volume does not exist.")]],
    Doc("Bytes that each volume takes on the host's disk."),
]


@dataclass(frozen=True, kw_only=True)
class GoldenDetails:
    """A golden: a machine that was booted and saved."""

    name: Annotated[MachineName, Doc("The golden's name.")]
    created: Annotated[UtcTime, Doc("When it was made, in UTC.")]
    fits: Annotated[bool, Doc("Whether machines can be made from it on this host now.")]
    why_not: Annotated[str | None, Doc("Why it cannot be used.")]
    clones: Annotated[list[str], Doc("The disks of its clones: overlays on the golden's disk.")]
    image: ImageRecord
    provenance: Annotated[str, Doc("How the image was verified, in words.")]
    route: Annotated[
        str, Doc("How its memory is kept: cow (copy-on-write file) or libvirt's save image.")
    ]
    mac: MacAddress
    shape: Shape
    ground: Annotated[
        dict[str, Annotated[str, Doc("A version, a name or a digest.")]],
        Doc(
            "The host that made it. Its QEMU, machine type, accelerator and firmware must be the "
            "same here; libvirt may be newer."
        ),
    ]
    host_key: Fingerprint | None
    imported: Annotated[
        str | None, Doc("Digest of the golden's manifest, if it was imported; else null.")
    ]
    signer: Annotated[str | None, Doc("Whose signature the import verified; null: none.")]
    volumes: Volumes


@dataclass(frozen=True, kw_only=True)
class VerifiedGolden:
    """A golden that is intact and can be used. Any other golden is an error."""

    name: Annotated[MachineName, Doc("The golden's name.")]
    whole: Annotated[bool, Doc("Every part exists and is unchanged.", const=True)] = True
    fits: Annotated[bool, Doc("It can be used on this host.", const=True)] = True
    volumes: Volumes


def assert_there(connection: Connection, name: str) -> None:
    """Raise NotFound if no golden has this name."""
    find_golden(connection, name)


def free_name(connection: Connection) -> str:
    """Return the first of ``golden-01``, ``golden-02``, … that no domain has."""
    return next_name(domain_names(connection), prefix="golden")


def names(connection: Connection) -> list[str]:
    """Return the names of all goldens."""
    return [golden.name for golden in goldens(connection)]


def describe(where: Where, golden: Golden) -> GoldenDetails:
    """Return the details of a golden."""
    mark = golden.mark
    pool = pools.find_pool(where.connection, mark.record.pool)
    reason = unusable(where, golden)
    users = users_of(pool, golden) if pool else []
    return GoldenDetails(
        name=golden.name,
        created=mark.created,
        fits=reason is None,
        why_not=reason,
        clones=[one for one in users if volumes.snapshot_of(one) is None],
        image=cast("ImageRecord", mark.record.image),
        provenance=of_record(mark.record.image),
        route=mark.route,
        mac=golden.cards[0].mac,
        shape=cast("Shape", mark.shape),
        ground=ground_in(golden),
        host_key=fingerprint(mark.record.host_key) if mark.record.host_key else None,
        imported=mark.imported,
        signer=mark.signer,
        volumes=_sizes(pool, golden) if pool else {},
    )


def descriptions(where: Where) -> list[GoldenDetails]:
    """Return `describe` of every golden, by name."""
    return [describe(where, golden) for golden in goldens(where.connection)]


def users_of(pool: Pool, golden: Golden) -> list[str]:
    """Return the volumes whose backing file is a golden's disk: clones and their snapshots."""
    return volumes_on(pool, Path(golden.overlay).name)


def _user(volume: str) -> str:
    """Return a readable name for a volume that uses a golden's disk."""
    taken = volumes.snapshot_of(volume)
    return f"snapshot {taken[1]} of {taken[0]}" if taken else volume.removesuffix(".qcow2")


def verify(where: Where, name: str) -> VerifiedGolden:
    """Verify that a golden is intact and can be used on this host.

    Raises StorageError if a part is missing or changed, and Conflict if the host changed since the
    golden was made, or if its memory cannot be used over this connection.
    """
    golden = find_golden(where.connection, name)
    pool = pools.need_pool(where.connection, golden.mark.record.pool, name)
    again = f"delete it and create it again: armvm golden delete {name}"
    for what, volume_name in _parts(golden).items():
        if volumes.find_volume(pool, volume_name) is None:
            raise StorageError(f"the {what} of golden {name} is missing: {volume_name}", hint=again)
    wrong = memory.route(golden.mark.route).check(
        where.connection, pool, name, golden.definition, golden.mark.state_digest
    )
    if wrong is not None:
        raise StorageError(wrong, hint=again)
    ready.check_route(where, golden)
    reason = fits(where, golden)
    if reason is not None:
        raise Conflict(f"golden {name} is intact but cannot be used here: {reason}", hint=again)
    return VerifiedGolden(name=name, volumes=_sizes(pool, golden))


def delete(connection: Connection, name: str) -> list[str]:
    """Remove a golden with its volumes and return their names.

    Raises NotFound, and Conflict if machines use its disk as their backing file.
    """
    golden = find_golden(connection, name)
    pool = pools.find_pool(connection, golden.mark.record.pool)
    # The pool is emptied only if nothing else uses the golden.
    _check_unused(pool, golden, besides=_pooled(connection, golden))
    if golden.mark.pool:
        ready.remove(connection, golden)
        _check_unused(pool, golden)
    with shielded():
        # The volumes first: as long as the domain exists, another delete can finish the work.
        removed = delete_machine_volumes(pool, name) if pool else []
        try:
            lifecycle.undefine(find_domain(connection, name))
        except NotFound:
            return removed  # another process was faster
        forget_host(golden.uuid)
        return removed


def _check_unused(pool: Pool | None, golden: Golden, *, besides: Collection[str] = ()) -> None:
    """Raise Conflict if volumes use a golden's disk, *besides* some."""
    users = [one for one in (users_of(pool, golden) if pool else []) if one not in besides]
    if users:
        raise in_use(golden, [_user(volume) for volume in users])


def _pooled(connection: Connection, golden: Golden) -> set[str]:
    """Return the disks of the members of a golden's pool that can be removed."""
    return {
        Path(one.overlay).name
        for one in instances(connection)
        if golden.mark.pool
        and ready.is_member(one, golden)
        and ready.can_be_removed(one)
        and one.overlay is not None
    }


def _parts(golden: Golden) -> dict[str, str]:
    names = volumes.volume_names(golden.name)
    route = memory.route(golden.mark.route)
    return {what: names[what] for what in ("overlay", "seed", *route.VOLUMES)}


def _sizes(pool: Pool, golden: Golden) -> Volumes:
    """Return the bytes that each of a golden's volumes takes on the host's disk."""
    found: Volumes = {}
    for what, name in _parts(golden).items():
        volume = volumes.find_volume(pool, name)
        found[what] = None if volume is None else volumes.allocation(volume)
    return found
