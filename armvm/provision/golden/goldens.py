"""Everyday verbs over goldens: list, show, verify, delete."""

from __future__ import annotations

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
from armvm.host.domain.instance import domain_names, find_domain
from armvm.host.domain.metadata import ImageRecord
from armvm.host.memory import route as memory
from armvm.host.storage import pools, volumes
from armvm.host.storage.base_image import volumes_on
from armvm.images.trust.provenance import of_record
from armvm.provision.golden.choose import fits, in_use
from armvm.provision.machine.create import Where
from armvm.provision.machine.known_hosts import forget_host
from armvm.settings.names import next_name


class _Known(TypedDict):
    image: Annotated[str, Doc("The image's digest, or the machine whose disk was copied.")]
    cpus: Cpus
    memory_mib: MemoryMib
    disk: Annotated[int, Doc("Size of the root disk in bytes.")]
    cpu: Annotated[str, Doc("The CPU's model or mode.")]
    headless: Annotated[bool, Doc("Whether it has no video and input devices.")]
    autologin: Annotated[bool, Doc("Whether the console logs in automatically.")]
    user: Annotated[str, Doc("The guest's user.")]
    network: Annotated[str, Doc("The kind of network.", enum=["user", "libvirt"])]
    pool: Annotated[str, Doc("The storage pool.")]


class Shape(_Known, total=False):
    """What a machine must ask for to be made from the golden."""

    motd: Annotated[bool, Doc("false: no message of the day.")]
    fast: Annotated[bool, Doc("true: made with --fast.")]
    presets: Annotated[list[str], Doc("The presets whose packages are installed.")]


#: How many bytes each volume takes; None for one that does not exist.
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
    clones: Annotated[
        list[str], Doc("The disks of its clones, whose backing file is its own disk.")
    ]
    image: ImageRecord
    provenance: Annotated[str, Doc("How the image was verified, in words.")]
    route: Annotated[
        str, Doc("How its memory is kept: cow (copy-on-write file) or libvirt's save image.")
    ]
    mac: MacAddress
    shape: Shape
    ground: Annotated[
        dict[str, Annotated[str, Doc("A version, or a file with its size and modification time.")]],
        Doc("What must not change on the host: libvirt, QEMU, machine type, firmware."),
    ]
    host_key: Fingerprint | None
    volumes: Volumes


@dataclass(frozen=True, kw_only=True)
class VerifiedGolden:
    """A golden that is intact and can be used; any other is an error."""

    name: Annotated[MachineName, Doc("The golden's name.")]
    whole: Annotated[bool, Doc("Every part exists and is unchanged.", const=True)] = True
    fits: Annotated[bool, Doc("It can be used on this host.", const=True)] = True
    volumes: Volumes


def find(where: Where, name: str) -> Golden:
    """Return a golden by name. Raises NotFound."""
    return find_golden(where.connection, name)


def assert_there(connection: Connection, name: str) -> None:
    """Raise NotFound where there is no golden of this name."""
    find_golden(connection, name)


def free_name(connection: Connection) -> str:
    """Return the first of ``golden-01``, ``golden-02``, … that no domain has."""
    return next_name(domain_names(connection), prefix="golden")


def names(connection: Connection) -> list[str]:
    """Return the names of all goldens."""
    return [golden.name for golden in goldens(connection)]


def describe(where: Where, golden: Golden) -> GoldenDetails:
    """Return everything that is known about a golden."""
    mark = golden.mark
    pool = pools.find_pool(where.connection, mark.record.pool)
    reason = fits(where, golden)
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
        mac=golden.mac,
        shape=cast("Shape", mark.shape),
        ground=dict(mark.ground),
        host_key=fingerprint(mark.record.host_key) if mark.record.host_key else None,
        volumes=_sizes(pool, golden) if pool else {},
    )


def descriptions(where: Where) -> list[GoldenDetails]:
    """Return `describe` of every golden, by name."""
    return [describe(where, golden) for golden in goldens(where.connection)]


def users_of(pool: Pool, golden: Golden) -> list[str]:
    """Return the volumes that stand on a golden's disk: of clones, and of their snapshots."""
    return volumes_on(pool, Path(golden.overlay).name)


def _user(volume: str) -> str:
    """Return what a volume on a golden's disk is, for people."""
    taken = volumes.snapshot_of(volume)
    return f"the snapshot {taken[1]} of {taken[0]}" if taken else volume.removesuffix(".qcow2")


def verify(where: Where, name: str) -> VerifiedGolden:
    """Look whether a golden is whole and still of use here; return what was looked at.

    Raises StorageError when a part is missing or changed, Conflict when the host has changed
    since it was made.
    """
    golden = find_golden(where.connection, name)
    pool = pools.need_pool(where.connection, golden.mark.record.pool, name)
    again = f"armvm golden delete {name}, and make it again"
    for what, volume_name in _parts(golden).items():
        if volumes.find_volume(pool, volume_name) is None:
            raise StorageError(f"the {what} of {name} is gone: {volume_name}", hint=again)
    wrong = memory.route(golden.mark.route).check(
        where.connection, pool, name, golden.definition, golden.mark.state_digest
    )
    if wrong is not None:
        raise StorageError(wrong, hint=again)
    reason = fits(where, golden)
    if reason is not None:
        raise Conflict(f"{name} is whole, but of no use: {reason}", hint=again)
    return VerifiedGolden(name=name, volumes=_sizes(pool, golden))


def delete(connection: Connection, name: str) -> list[str]:
    """Remove a golden with its volumes and return their names.

    Raises NotFound, and Conflict while machines stand on its disk.
    """
    golden = find_golden(connection, name)
    pool = pools.find_pool(connection, golden.mark.record.pool)
    users = users_of(pool, golden) if pool else []
    if users:
        raise in_use(golden, [_user(volume) for volume in users])
    with shielded():
        # The volumes first: while the domain is there, the next delete finds what is left.
        removed = volumes.delete_machine_volumes(pool, name) if pool else []
        try:
            lifecycle.undefine(find_domain(connection, name))
        except NotFound:
            return removed  # another process was faster
        forget_host(golden.uuid)
        return removed


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
