"""A golden from a machine that exists: what is installed there is in every clone.

The machine's disk is copied, and the copy booted with a seed of its own, so that cloud-init sets
up user, keys and host key as for any golden. The machine is not touched. No image is the golden's
equal: its shape names the machine and the moment, so only ``--from`` finds it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armvm.base.errors import Conflict, StorageError
from armvm.base.progress import Progress
from armvm.host.connection import Pool, Volume
from armvm.host.domain.golden_domain import Golden
from armvm.host.domain.handle import find_machine
from armvm.host.domain.instance import Instance
from armvm.host.storage import pools, volumes
from armvm.images.model import Image
from armvm.provision.golden.bake import bake, golden_machine
from armvm.provision.golden.source import from_machine, reference_to
from armvm.provision.machine.create import Where, make_plan
from armvm.provision.machine.unfinished import assert_whole
from armvm.settings.machine import USER_NETWORK, Machine
from armvm.settings.size import size_label
from armvm.settings.table import SETTINGS


@dataclass(frozen=True, kw_only=True)
class Original:
    """The machine to make a golden from, and its disk's volume; ``capacity`` is in bytes."""

    instance: Instance
    volume: Volume
    capacity: int


def find_original(where: Where, name: str) -> Original:
    """Return the machine called *name* with its disk.

    Raises NotFound, Conflict while it runs or is being made, StorageError without its disk.
    """
    machine = find_machine(where.connection, name)
    instance = machine.instance
    assert_whole(instance)
    machine.require_off(": its disk is being written to")
    pool = pools.find_pool(where.connection, instance.record.pool)
    volume = volumes.find_volume(pool, Path(instance.overlay or "").name) if pool else None
    if volume is None:
        raise StorageError(f"the disk of {name} is not in the pool {instance.record.pool}")
    return Original(instance=instance, volume=volume, capacity=volumes.capacity(volume))


def settings_of(original: Original) -> dict[str, Any]:
    """Return a machine's settings as a layer, for a golden to be made from it."""
    instance, settings = original.instance, original.instance.record.settings
    return {
        **{key: settings.get(one.field) for key, one in SETTINGS.items() if one.kept},
        "image": reference_to(instance.name),
        "cpus": instance.cpus,
        "mem": instance.memory_mib,
        "disk": size_label(original.capacity),
        "user": instance.record.user,
        "network": instance.network or USER_NETWORK,
        "fast": False,  # no golden can be
        "tuned": False,  # its disk is what it is
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
    """Boot a copy of *original*'s disk as *machine*, settle it, and save it as a golden.

    Raises Conflict when another disk or image is asked for, and what baking raises.
    """
    instance = original.instance
    wanted = golden_machine(machine)
    if wanted.disk != original.capacity or wanted.image != reference_to(instance.name):
        raise Conflict(
            f"a golden from {instance.name} has its disk, as it is",
            hint="leave --disk and --image out",
        )
    image = _image(original)
    plan = make_plan(where, wanted, image.source)

    def copy(pool: Pool, name: str) -> None:
        with progress.task(f"copying the disk of {instance.name}"):
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


def _image(original: Original) -> Image:
    """Return what stands for the image of such a golden; there is no file of it."""
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
