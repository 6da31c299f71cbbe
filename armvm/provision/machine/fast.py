"""Fast machines: what ``--fast`` trades, and the kernel that they are given from outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, TypedDict

from armvm.base.errors import ImageError, MissingCapability
from armvm.base.progress import Progress
from armvm.base.result import Doc
from armvm.host.connection import Connection, Pool
from armvm.host.domain.domain_xml import DirectKernel
from armvm.host.domain.metadata import Record
from armvm.host.storage import volumes
from armvm.images.cache.store import Cache
from armvm.images.kernel import BootFiles, boot_files
from armvm.images.model import Image
from armvm.provision.machine.plan import CreatePlan

#: What a boot mounts and loads early although few need it: a process each. Masked, they do not
#: start even when asked for; mount(8), modprobe(8) and the kernel itself still do the same.
#: Source of the word: kernel-command-line(7).
UNITS = (
    "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "modprobe@configfs.service", "modprobe@dm_mod.service",
    "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service",
    "modprobe@loop.service",
)  # fmt: skip
#: The network from the command line: systemd's network generator and networkd do what otherwise
#: cloud-init has netplan do, a Python of its own. Only where networkd is what cloud-init would
#: use in the end, and no initramfs takes the word for itself.
NETWORK = ("ip=dhcp", "network-config=disabled")
_NETWORKD = ("debian",)


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
    names = volumes.volume_names(plan.machine.name)
    by_kernel = plan.source.system is not None and plan.source.system.distro in _NETWORKD
    kernel = DirectKernel(
        kernel=str(directory / names["kernel"]),
        initrd=str(directory / names["initrd"]),
        command_line=" ".join([files.command_line, *(NETWORK if by_kernel else ()), *_masks()]),
    )
    record = replace(
        plan.record,
        fast={
            **plan.record.fast,
            "kernel": files.name,
            "units": "masked",
            **({"network": "kernel"} if by_kernel else {}),
        },
    )
    return replace(plan, spec=replace(plan.spec, kernel=kernel), record=record), files


def _masks() -> list[str]:
    return [f"systemd.mask={unit}" for unit in UNITS]


def write_kernel(connection: Connection, pool: Pool, machine: str, files: BootFiles) -> None:
    """Put a kernel and its initrd into the pool, as volumes of the machine."""
    names = volumes.volume_names(machine)
    for what, path in (("kernel", files.kernel), ("initrd", files.initrd)):
        volumes.write_volume(connection, pool, names[what], path.read_bytes())


class Tradeoffs(TypedDict, total=False):
    """What --fast changed, in words."""

    disk: Annotated[str, Doc("How the disk is cached.")]
    kernel: Annotated[str, Doc("Which kernel is loaded from outside the disk.")]
    units: Annotated[str, Doc("Which file systems are not mounted at boot.")]
    network: Annotated[str, Doc("How the network is configured.")]


def traded(record: Record) -> Tradeoffs | None:
    """Return in words what a fast machine has traded; None for any other."""
    if not record.fast:
        return None
    words: Tradeoffs = {}
    if "cache" in record.fast:
        words["disk"] = (
            f"cache={record.fast['cache']}: never flushed, a crash of the host may ruin it"
        )
    if "kernel" in record.fast:
        words["kernel"] = (
            f"{record.fast['kernel']} from the image, loaded from outside: one that the guest "
            "installs later is not booted"
        )
    if "units" in record.fast:
        words["units"] = (
            "huge pages, message queues, debugfs and tracefs are not mounted, but can be by hand"
        )
    if "network" in record.fast:
        words["network"] = "DHCP by the kernel's command line: netplan has no configuration"
    return words
