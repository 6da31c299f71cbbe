"""A tuned image: an image, and what every boot of it would do again, done once.

The image is booted with the packages of the preset, what is in its way is switched off, all that
was the machine's own is removed, and its disk becomes an image in the cache: kept by the digest of
what it was made from and of how.
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
from armvm.images.model import Image, Verified
from armvm.images.obtain import LOCAL
from armvm.provision.access.ssh import ssh_command
from armvm.provision.machine import create
from armvm.provision.machine.create import Where, make_plan
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.temporary import remove, sweep
from armvm.provision.monitor.wait import wait_ready
from armvm.settings.machine import MIN_DISK, Machine

#: Raised when the same recipe must give another image although no text it uses has changed.
FORMAT = 1
#: How the names of the machines begin that are booted for it.
PREFIX = "tune-"
#: What packages of a preset may take on the disk, in bytes.
ROOM = 4 << 30
#: Seconds from the order to the power-off under KVM; emulation gets ten times that.
FINISH_TIMEOUT = 60.0


def tuned(
    where: Where, plan: CreatePlan, image: Image, *, timeout: float | None, progress: Progress
) -> Image:
    """Return the tuned form of *image* for the machine of *plan*: cached, or made now by a boot.

    *timeout* is in seconds, for that boot and the packages. Raises what creating and waiting
    raise, BuildFailed when the guest could not be tuned; no machine is left behind.
    """
    cache, digest = Cache.default(), recipe_digest(plan, image)
    name = tune.image_name(plan.source.reference, documents_of(plan.machine.preset))
    wait = f"another armvm is tuning {plan.source.reference}: waiting for it"
    with cache.lock(f"{LOCAL}{name}", on_wait=lambda: progress.say(wait)):
        entry = cache.find_local(name, digest)
        if entry is None:
            progress.say(f"tuning {plan.source.reference}: it is booted once, for all later boots")
            with cache.partial(f"{LOCAL}{name}") as partial:
                _make(where, plan, image, partial, timeout, progress)
                verified = plan.source.verified
                entry = cache.store_local(
                    partial,
                    name=name,
                    recipe=digest,
                    system=plan.source.system,
                    verified=Verified.BUILT if verified is Verified.SIGNATURE else verified,
                )
        cache.touch(entry)
    return Image(
        source=replace(plan.source, digest=entry.digest, tuned_from=image.digest),
        path=entry.path,
        digest=entry.digest,
        size=entry.size,
        virtual_size=_disk(plan, image),
    )


def recipe_digest(plan: CreatePlan, image: Image) -> str:
    """Return the sha256 (64 hex digits) of all that decides what a tuned image is."""
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
    """Return the size of the tuned disk in bytes: no larger than need be, for it cannot shrink."""
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
    """Boot the image as a machine of its own, tune that, and write its disk to *target*."""
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
            task.update(text="taking its disk")
            _take(where, machine.name, target)
    finally:
        remove(connection, machine.name, uuid=made.identity.uuid)


def _await_off(where: Where, domain: Domain, timeout: float) -> None:
    """Return when the guest has tuned itself and is off. Raises BuildFailed, NotReady."""
    instance, log = observe(domain), ""
    local = is_local(uri_of(where.connection))

    def is_off() -> bool:
        nonlocal log
        active = domain.isActive()
        log = serial.clean(read_tail(where.connection, instance.serial_log, local=local))
        if tune.FAILED in log or (not active and tune.DONE not in log):
            raise BuildFailed(
                f"{instance.name} could not be tuned",
                detail=serial.tail(log),
                hint="the image may be one that armvm does not know: boot it without --tuned",
            )
        return not active

    until(
        is_off,
        timeout=timeout,
        interval=0.5,
        late=lambda: NotReady(
            f"{instance.name} was not tuned within {timeout:g} s", detail=serial.tail(log)
        ),
    )


def _take(where: Where, name: str, target: Path) -> None:
    """Write a machine's disk, which stands on nothing then, to a local file."""
    pool = pools.need_pool(where.connection, where.pool, name)
    names = volumes.volume_names(name)
    overlay = volumes.need_volume(pool, names["overlay"])
    pools.check_space(pool, volumes.allocation(overlay))
    flat = volumes.copy_volume(pool, names["image"], overlay, "qcow2")
    transfer.download_file(where.connection, flat, target)
