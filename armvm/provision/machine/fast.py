"""Fast machines: what ``--fast`` changes, and the kernel that QEMU loads for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, TypedDict

from armvm.base.errors import ImageError, MissingCapability
from armvm.base.progress import Progress
from armvm.base.result import Doc
from armvm.host.connection import Connection, Pool
from armvm.host.domain.domain_xml import DirectKernel
from armvm.host.domain.metadata import Record
from armvm.host.facts import Accelerator
from armvm.host.memory.route import COW
from armvm.host.storage import volumes
from armvm.images.model import Image
from armvm.provision.machine.plan import CreatePlan

if TYPE_CHECKING:
    from armvm.images.kernel import BootFiles

#: Units that start early although few guests need them; each costs a process. If masked, they do
#: not start even on request, but mount(8), modprobe(8) and the kernel still do the same.
#: Source of the option: kernel-command-line(7).
UNITS = (
    "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "modprobe@configfs.service", "modprobe@dm_mod.service",
    "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service",
    "modprobe@loop.service",
)  # fmt: skip
#: Network configuration on the command line. systemd's network generator and networkd do the work
#: for which cloud-init would start netplan, another Python program. Used only if cloud-init would
#: use networkd too and the initramfs does not interpret these options itself.
NETWORK = ("ip=dhcp", "network-config=disabled")
_NETWORKD = ("debian",)
#: Turns off page table isolation, which arm64 kernels use if they randomize their addresses. It
#: changes the address space identifier at each entry to the kernel and each exit, and QEMU then
#: discards all translated addresses. It protects against speculative execution, which emulated
#: CPUs do not have. Sources: Linux, kernel-parameters.txt and kaslr_requires_kpti; QEMU,
#: vmsa_ttbr_write.
KPTI = "kpti=0"


def with_kernel(
    plan: CreatePlan, image: Image, progress: Progress
) -> tuple[CreatePlan, BootFiles | None]:
    """Return the plan of a fast machine or a golden with the image's kernel added, and that kernel.

    A golden's kernel is loaded from outside only for its own boot, so that its memory, and that of
    its clones, is of a kernel without page table isolation. If the image's kernel cannot be used,
    prints why; the boot loader on the disk then starts it.
    """
    emulated = plan.spec.accelerator is Accelerator.TCG
    shares = plan.spec.memory_file is not None and plan.spec.memory_route == COW
    golden = emulated and shares
    if not plan.machine.fast and not golden:
        return plan, None
    from armvm.images.cache.store import Cache  # few machines need them
    from armvm.images.kernel import boot_files

    try:
        files = boot_files(image, cache=Cache.default())
    except (ImageError, MissingCapability) as error:
        if golden:
            progress.say(
                f"falling back to the image's boot loader, which isolates page tables and makes "
                f"clones slower: {error.message}"
            )
        else:
            progress.say(f"--fast: falling back to a firmware boot: {error.message}")
        return plan, None
    directory = PurePosixPath(plan.spec.overlay).parent
    names = volumes.volume_names(plan.machine.name)
    if golden:
        kernel = DirectKernel(
            kernel=str(directory / names["kernel"]),
            initrd=str(directory / names["initrd"]),
            command_line=f"{files.command_line} {KPTI}",
            firmware=True,
        )
        return replace(plan, spec=replace(plan.spec, kernel=kernel)), files
    distro = None if plan.source.system is None else plan.source.system.distro
    usual = plan.machine.network_config is None and len(plan.spec.cards) == 1
    by_kernel = distro in _NETWORKD and usual
    words = [*([KPTI] if emulated else ()), *(NETWORK if by_kernel else ())]
    kernel = DirectKernel(
        kernel=str(directory / names["kernel"]),
        initrd=str(directory / names["initrd"]),
        command_line=" ".join([files.command_line, *words, *masks(UNITS)]),
    )
    record = replace(
        plan.record,
        fast={
            **plan.record.fast,
            "kernel": files.name,
            "units": "masked",
            **({"kpti": "0"} if emulated else {}),
            **({"network": "kernel"} if by_kernel else {}),
        },
    )
    return replace(plan, spec=replace(plan.spec, kernel=kernel), record=record), files


def masks(units: Sequence[str]) -> list[str]:
    """Return the words of a kernel command line that mask units."""
    return [f"systemd.mask={unit}" for unit in units]


def write_kernel(connection: Connection, pool: Pool, machine: str, files: BootFiles) -> None:
    """Write a kernel and its initrd to the pool, as volumes of the machine."""
    names = volumes.volume_names(machine)
    for what, path in (("kernel", files.kernel), ("initrd", files.initrd)):
        volumes.write_volume(connection, pool, names[what], path.read_bytes())


class Tradeoffs(TypedDict, total=False):
    """What --fast changed, in words."""

    disk: Annotated[str, Doc("How the disk is cached.")]
    kernel: Annotated[str, Doc("Which kernel QEMU loads, instead of one from the disk.")]
    units: Annotated[str, Doc("Which file systems are not mounted at boot.")]
    network: Annotated[str, Doc("How the network is configured.")]
    kpti: Annotated[str, Doc("Emulated machines: whether the kernel isolates its page tables.")]


def traded(record: Record) -> Tradeoffs | None:
    """Return in words what --fast changed in a machine; None for other machines."""
    if not record.fast:
        return None
    words: Tradeoffs = {}
    if "cache" in record.fast:
        words["disk"] = (
            f"cache={record.fast['cache']}: never flushed; a crash of the host may corrupt it"
        )
    if "kernel" in record.fast:
        words["kernel"] = (
            f"{record.fast['kernel']} from the image, loaded by QEMU; a kernel that the guest "
            "installs later is not booted"
        )
    if "units" in record.fast:
        words["units"] = (
            "huge pages, message queues, debugfs and tracefs are not mounted at boot; mount(8) "
            "still works"
        )
    if "network" in record.fast:
        words["network"] = "DHCP from the kernel's command line; netplan is not configured"
    if "kpti" in record.fast:
        words["kpti"] = (
            "page tables are not isolated (kpti=0), which is against speculative execution; "
            "emulated CPUs do not speculate"
        )
    return words
