"""Create a golden from an existing machine, so that every clone has its installed software.

armvm copies the machine's disk and boots the copy with a new seed, so that cloud-init sets up
user, keys and host key as for any golden. The machine itself is unchanged. The golden corresponds
to no image: its shape contains the machine and the time, so only ``--from`` selects it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armvm.base.errors import Conflict, StorageError
from armvm.base.progress import Progress
from armvm.host.connection import Pool, Volume
from armvm.host.domain.disks import disks
from armvm.host.domain.golden_domain import Golden
from armvm.host.domain.handle import find_machine
from armvm.host.domain.instance import Instance
from armvm.host.storage import pools, volumes
from armvm.images.model import Image
from armvm.provision.golden.bake import bake, golden_machine
from armvm.provision.golden.source import from_machine, reference_to
from armvm.provision.machine.create import Where, check_name, make_plan
from armvm.provision.machine.own_disk import left_alone
from armvm.provision.machine.unfinished import assert_whole
from armvm.settings.machine import Machine
from armvm.settings.networks import USER_NETWORK
from armvm.settings.size import size_label
from armvm.settings.table import SETTINGS


@dataclass(frozen=True, kw_only=True)
class Original:
    """The machine to make a golden from, and the volume of its disk (``capacity`` in bytes)."""

    instance: Instance
    volume: Volume
    capacity: int


def find_original(where: Where, name: str) -> Original:
    """Return the machine called *name* with its disk.

    Raises NotFound, Conflict if it runs or is still being created, and StorageError if its disk is
    missing.
    """
    machine = find_machine(where.connection, name)
    instance = machine.instance
    assert_whole(instance)
    machine.require_off(": its disk is being written to")
    pool = pools.find_pool(where.connection, instance.record.pool)
    volume = volumes.find_volume(pool, Path(instance.overlay or "").name) if pool else None
    if volume is None:
        raise StorageError(f"disk of {name} not found in the pool {instance.record.pool}")
    return Original(instance=instance, volume=volume, capacity=volumes.capacity(volume))


def settings_of(original: Original) -> dict[str, Any]:
    """Return a machine's settings as a layer, for creating a golden from it."""
    instance, settings = original.instance, original.instance.record.settings
    return {
        **{key: settings.get(one.field) for key, one in SETTINGS.items() if one.kept},
        "image": reference_to(instance.name),
        "cpus": instance.cpus,
        "mem": instance.memory_mib,
        "disk": size_label(original.capacity),
        "user": instance.record.user,
        "network": ",".join(instance.networks) or USER_NETWORK,
        "ip": None,  # the machine's own
        "fast": False,  # unsupported for goldens
        "tuned": False,  # the disk is copied unchanged
    }


def create_from(
    where: Where,
    machine: Machine,
    original: Original,
    *,
    timeout: float | None,
    progress: Progress,
    save_image: bool = False,
) -> Golden:
    """Boot a copy of *original*'s disk as *machine*, let it become idle, and save it as a golden.

    Raises Conflict if another disk or image is requested, and the errors of baking.
    """
    instance = original.instance
    wanted = golden_machine(machine)
    check_name(where.connection, wanted.name)
    if wanted.disk != original.capacity or wanted.image != reference_to(instance.name):
        raise Conflict(
            f"--disk and --image cannot be used: the golden copies the disk of {instance.name}",
            hint="leave out --disk and --image",
        )
    _assert_simple(where, instance)
    image = _image(original)
    plan = make_plan(where, wanted, image.source)

    def copy(pool: Pool, name: str) -> None:
        with (
            progress.task(f"copying the disk of {instance.name}"),
            left_alone(find_machine(where.connection, instance.name), original.volume),
        ):
            volumes.copy_volume(pool, name, original.volume, "qcow2")

    return bake(
        where,
        plan,
        image,
        timeout=timeout,
        progress=progress,
        save_image=save_image,
        disk=copy,
    )


def _assert_simple(where: Where, instance: Instance) -> None:
    """Raise Conflict for a machine without cloud-init, or with disks that are not copied."""
    if instance.seed is None:
        raise Conflict(
            f"{instance.name} has no cloud-init seed; a golden requires an image with cloud-init"
        )
    domain = find_machine(where.connection, instance.name).domain
    more = [one.name for one in disks(domain) if not one.essential and not one.read_only]
    if more:
        raise Conflict(
            f"{instance.name} has further disks, which a golden would not copy: {', '.join(more)}",
            hint=f"remove them first: armvm disk remove --keep {instance.name} {more[0]}",
        )


def _image(original: Original) -> Image:
    """Return a placeholder for the golden's image, without a file."""
    instance = original.instance
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    system = instance.record.image.get("system", "")
    source = from_machine(instance.name, uuid=instance.uuid, now=now, system=system)
    return Image(
        source=source,
        path=Path(),
        digest=source.digest,
        size=0,
        virtual_size=original.capacity,
    )
