"""Change a domain's disk size, memory and vCPUs: in its definition, and live if possible.

Source: libvirt-domain.html, virDomainBlockResize, virDomainSetMemoryFlags, virDomainSetVcpusFlags.
"""

from __future__ import annotations

import libvirt

from armvm.base.poll import until
from armvm.host.connection import Domain, Volume, errors, is_code
from armvm.host.xml import at, parse

#: Seconds for a guest's balloon to reach its size.
_BALLOON_PATIENCE = 20.0
_POLL = 0.2
#: libvirt's errors if vCPUs cannot be plugged in, or exceed the machine's maximum.
_NO_HOTPLUG = (
    libvirt.VIR_ERR_INVALID_ARG,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
)


def grow_volume(volume: Volume, size: int) -> None:
    """Grow an unused volume to *size* bytes; its file stays sparse."""
    with errors(f"growing the volume {volume.name()}"):
        volume.resize(size, 0)


def grow_live(domain: Domain, size: int) -> None:
    """Grow a running domain's first disk to *size* bytes; the guest is notified at once."""
    with errors(f"growing the disk of {domain.name()}"):
        disk = at(parse(domain.XMLDesc(0)), "devices/disk[1]/target").get("dev", "")
        domain.blockResize(disk, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def set_memory(domain: Domain, mib: int) -> None:
    """Set the memory that a domain starts with, in MiB."""
    config = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    with errors(f"changing the memory of {domain.name()}"):
        # The larger value first: the current memory must never exceed the maximum.
        domain.setMemoryFlags(mib << 10, config | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
        domain.setMemoryFlags(mib << 10, config)


def set_cpus(domain: Domain, count: int) -> None:
    """Set the number of vCPUs that a domain starts with."""
    config = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    most = config | libvirt.VIR_DOMAIN_VCPU_MAXIMUM
    with errors(f"changing the vCPUs of {domain.name()}"):
        if count > domain.vcpusFlags(most):
            domain.setVcpusFlags(count, most)
            domain.setVcpusFlags(count, config)
        else:
            domain.setVcpusFlags(count, config)
            domain.setVcpusFlags(count, most)


def balloon(domain: Domain, mib: int) -> str | None:
    """Give a running guest *mib* of the memory it was started with; None on success.

    Otherwise returns why the memory did not change.
    """
    with errors(f"reading {domain.name()}"):
        document = parse(domain.XMLDesc(0))
    most = int(at(document, "memory").text or 0)
    if mib << 10 > most:
        return (
            f"it started with {most >> 10} MiB, and QEMU's ARM64 machine cannot add more while it "
            "runs"
        )
    device = document.find("devices/memballoon")
    if device is None or device.get("model") == "none":
        return "until it is stopped, a clone shares its golden's memory, which cannot be resized"
    try:
        domain.setMemoryFlags(mib << 10, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        return str(error.get_error_message())
    with errors(f"reading {domain.name()}"):
        moved = until(
            lambda: domain.info()[2] == mib << 10, timeout=_BALLOON_PATIENCE, interval=_POLL
        )
    return None if moved else "the guest has not resized its balloon yet"


def plug_cpus(domain: Domain, count: int) -> str | None:
    """Give a running guest *count* vCPUs; None on success, else the reason for the failure."""
    try:
        if domain.vcpusFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE) == count:
            return None
        domain.setVcpusFlags(count, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        if is_code(error, *_NO_HOTPLUG):
            return "QEMU's ARM64 machine cannot add or remove vCPUs while it runs"
        return str(error.get_error_message())
    return None
