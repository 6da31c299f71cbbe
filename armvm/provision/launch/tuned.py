"""Tuned images: images on which the work of every first boot is already done.

armvm boots the image with the packages of the preset, disables services that slow down the boot
and removes everything specific to that machine. The disk becomes an image in the cache. Its key is
the digest of the original image and of the recipe.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import replace
from pathlib import Path

from armvm.base import process
from armvm.base.errors import BuildFailed, NotReady
from armvm.base.paths import data_dir
from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.guest.agents import tune
from armvm.guest.boot import serial
from armvm.guest.cloudinit.credentials import own_key
from armvm.guest.cloudinit.presets import documents_of, packages_of
from armvm.host.connection import Domain, is_local, uri_of
from armvm.host.console.serial_log import read_tail
from armvm.host.domain.instance import observe
from armvm.host.facts import Accelerator
from armvm.host.storage import pools, transfer, volumes
from armvm.images.cache.store import Cache
from armvm.images.model import Image
from armvm.provision.access.ssh import ssh_command
from armvm.provision.machine import create
from armvm.provision.machine.create import Where, make_plan
from armvm.provision.machine.delete import remove_temporary, sweep
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.monitor.wait import wait_ready
from armvm.settings.machine import MIN_DISK, Machine

#: Increased when the same recipe must give a different image although its texts are unchanged.
FORMAT = 1
#: Prefix for the names of the machines that are booted for tuning.
PREFIX = "tune-"
#: Space on the disk for the packages of a preset, in bytes.
ROOM = 4 << 30
#: Seconds from the start of tuning to the power-off under KVM; ten times that if emulated.
FINISH_TIMEOUT = 60.0


def tuned(
    where: Where, plan: CreatePlan, image: Image, *, timeout: float | None, progress: Progress
) -> Image:
    """Return the tuned form of *image* for the machine of *plan*, from the cache or by a boot.

    *timeout* is in seconds and covers that boot and the packages. Raises BuildFailed if the guest
    cannot be tuned, and the errors of creating and waiting. No machine is left behind.
    """
    name = tune.image_name(plan.source.reference, documents_of(plan.machine.preset))
    wait = f"waiting for another armvm process that is tuning {plan.source.reference}"

    def make(target: Path) -> None:
        progress.say(f"tuning {plan.source.reference}: this boots it once")
        _make(where, plan, image, target, timeout, progress)

    entry = Cache.default().derived(
        plan.source,
        name=name,
        recipe=recipe_digest(plan, image),
        make=make,
        on_wait=lambda: progress.say(wait),
    )
    return Image(
        source=replace(plan.source, digest=entry.digest, tuned_from=image.digest),
        path=entry.path,
        digest=entry.digest,
        size=entry.size,
        virtual_size=_disk(plan, image),
    )


def recipe_digest(plan: CreatePlan, image: Image) -> str:
    """Return the sha256 (64 hex digits) of everything that determines a tuned image."""
    content = {
        "format": FORMAT,
        "image": image.digest,
        "packages": packages_of(plan.machine.preset, plan.source.system),
        "presets": documents_of(plan.machine.preset),
        "disk": _disk(plan, image),
        "guest": [tune.script(), tune.USER_DATA],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _disk(plan: CreatePlan, image: Image) -> int:
    """Return the size of the tuned disk in bytes. It is small because a disk cannot shrink."""
    packages = packages_of(plan.machine.preset, plan.source.system)
    return max(image.virtual_size, MIN_DISK) + (ROOM if packages else 0)


def _make(
    where: Where,
    plan: CreatePlan,
    image: Image,
    target: Path,
    timeout: float | None,
    progress: Progress,
) -> None:
    """Boot the image as a temporary machine, tune it, and write its disk to *target*."""
    connection, wanted = where.connection, plan.machine
    sweep(connection, progress, PREFIX)
    machine = Machine(
        name=f"{PREFIX}{secrets.token_hex(4)}",
        cpus=wanted.cpus,
        memory_mib=max(wanted.memory_mib, 1024),
        disk=_disk(plan, image),
        image=wanted.image,
        user=tune.USER,
        ssh_keys=(own_key(data_dir())[1],),
        own_key=True,
        network=wanted.network,
        cpu_model=wanted.cpu_model,
        headless=True,
        autologin=False,
        preset=wanted.preset,
        user_data=tune.USER_DATA,
    )
    made = make_plan(where, machine, plan.source)
    try:
        domain = create.apply(where, made, image, start=True, progress=progress, whole=False)
        ready = wait_ready(
            connection, machine.name, timeout=timeout, progress=progress, stays=False
        )
        with progress.task(f"{machine.name}: tuning") as task:
            patience = FINISH_TIMEOUT * Accelerator(ready.instance.accelerator).patience
            argv = ssh_command(ready.instance, ready.endpoint, [tune.COMMAND], batch=True)
            process.run(argv, input=tune.script().encode(), timeout=patience)
            _await_off(where, domain, patience)
            task.update(text="copying its disk")
            _take(where, machine.name, target)
    finally:
        remove_temporary(connection, machine.name, uuid=made.identity.uuid)


def _await_off(where: Where, domain: Domain, timeout: float) -> None:
    """Wait until the guest has tuned itself and is off. Raises BuildFailed, NotReady."""
    instance, log = observe(domain), ""
    local = is_local(uri_of(where.connection))

    def is_off() -> bool:
        nonlocal log
        active = domain.isActive()
        log = serial.clean(read_tail(where.connection, instance.serial_log, local=local))
        if tune.FAILED in log or (not active and tune.DONE not in log):
            raise BuildFailed(
                f"{instance.name} cannot be tuned",
                detail=serial.tail(log),
                hint="armvm may not support tuning this image: boot it without --tuned",
            )
        return not active

    until(
        is_off,
        timeout=timeout,
        interval=0.5,
        late=lambda: NotReady(
            f"timed out after {timeout:g} s: {instance.name} is still being tuned",
            detail=serial.tail(log),
        ),
    )


def _take(where: Where, name: str, target: Path) -> None:
    """Write a machine's disk, without a backing file, to a local file."""
    pool = pools.need_pool(where.connection, where.pool, name)
    names = volumes.volume_names(name)
    overlay = volumes.need_volume(pool, names["overlay"])
    pools.check_space(pool, volumes.allocation(overlay))
    flat = volumes.copy_volume(pool, names["image"], overlay, "qcow2")
    transfer.download_file(where.connection, flat, target)
