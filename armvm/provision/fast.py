"""Fast machines: what ``--fast`` trades, and the kernel that they are given from outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from armvm.errors import ImageError, MissingCapability
from armvm.host import storage
from armvm.host.connection import Connection, Pool
from armvm.host.domain_xml import DirectKernel
from armvm.host.metadata import Record
from armvm.images.cache import Cache
from armvm.images.kernel import BootFiles, boot_files
from armvm.images.model import Image
from armvm.progress import Progress
from armvm.provision.plan import CreatePlan


def with_kernel(
    plan: CreatePlan, image: Image, progress: Progress
) -> tuple[CreatePlan, BootFiles | None]:
    """Return the plan of a fast machine with the image's own kernel in it, and that kernel.

    Where none can be had from the image, a line says why, and the firmware boots the machine.
    """
    if not plan.machine.fast:
        return plan, None
    try:
        files = boot_files(image, cache=Cache.default())
    except (ImageError, MissingCapability) as error:
        progress.say(f"--fast: booting by firmware, since {error.message}")
        return plan, None
    directory = PurePosixPath(plan.spec.overlay).parent
    names = storage.volume_names(plan.machine.name)
    kernel = DirectKernel(
        kernel=str(directory / names["kernel"]),
        initrd=str(directory / names["initrd"]),
        command_line=files.command_line,
    )
    record = replace(plan.record, fast={**plan.record.fast, "kernel": files.name})
    return replace(plan, spec=replace(plan.spec, kernel=kernel), record=record), files


def write_kernel(connection: Connection, pool: Pool, machine: str, files: BootFiles) -> None:
    """Put a kernel and its initrd into the pool, as volumes of the machine."""
    names = storage.volume_names(machine)
    for what, path in (("kernel", files.kernel), ("initrd", files.initrd)):
        storage.write_volume(connection, pool, names[what], path.read_bytes())


def traded(record: Record) -> dict[str, Any] | None:
    """Return in words what a fast machine has traded; None for any other."""
    if not record.fast:
        return None
    words = {}
    if "cache" in record.fast:
        words["disk"] = (
            f"cache={record.fast['cache']}: never flushed, a crash of the host may ruin it"
        )
    if "kernel" in record.fast:
        words["kernel"] = (
            f"{record.fast['kernel']} from the image, loaded from outside: one that the guest "
            "installs later is not booted"
        )
    return words
