"""A disk that is plugged into a running machine to carry many bytes, and used once.

The guest unplugs it; see `armvm.guest.agents.command_server`. If it does not, the host does. It is
not in the machine's definition.
"""

from __future__ import annotations

import contextlib
import string

import libvirt
from lxml import etree

from armvm.base.errors import MissingCapability
from armvm.base.poll import until
from armvm.host.connection import Domain, errors
from armvm.host.domain.shared_directories import has_free_port
from armvm.host.xml import at, parse, select, to_text

#: Seconds for a guest to unplug a disk by itself, and if the host asks for it: its kernel waits for
#: 5 seconds then.
_OWN_PATIENCE, _ASKED_PATIENCE = 5.0, 10.0
_POLL = 0.05
#: Bytes that are left of a disk that a guest keeps.
_STUMP = 1 << 20


def plug(domain: Domain, path: str, serial: str, *, read_only: bool) -> None:
    """Plug the raw volume at *path* into a running machine, as a disk with a serial number.

    Raises MissingCapability if the machine has no free PCIe port, DomainError if libvirt fails.
    """
    name = domain.name()
    if not has_free_port(domain):
        raise MissingCapability(f"{name} has no free PCIe port")
    with errors(f"plugging a disk into {name}"):
        domain.attachDeviceFlags(
            to_text(_disk(path, serial, _target(domain), read_only)),
            libvirt.VIR_DOMAIN_AFFECT_LIVE,
        )


def unplug(domain: Domain, serial: str, patience: float) -> bool:
    """Unplug a disk unless the guest has done so; return whether it is gone.

    *patience* is the factor for timeouts. If the guest keeps the disk, armvm shrinks it, so that it
    takes no space on the host.
    """

    def gone() -> bool:
        return _find(domain, serial) is None

    with errors(f"unplugging a disk from {domain.name()}"):
        if until(gone, timeout=_OWN_PATIENCE, interval=_POLL):
            return True
        disk = _find(domain, serial)
        if disk is None:
            return True
        with contextlib.suppress(libvirt.libvirtError):  # the guest was quicker
            domain.detachDeviceFlags(to_text(disk), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        if until(gone, timeout=_ASKED_PATIENCE * patience, interval=_POLL):
            return True
        with contextlib.suppress(libvirt.libvirtError):  # a read-only one
            target = at(disk, "target").get("dev", "")
            domain.blockResize(target, _STUMP, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    return False


def _find(domain: Domain, serial: str) -> etree._Element | None:
    """Return a running machine's disk with a serial number."""
    disks = select(parse(domain.XMLDesc(0)), "devices/disk")
    return next((one for one in disks if one.findtext("serial") == serial), None)


def _disk(path: str, serial: str, target: str, read_only: bool) -> etree._Element:
    disk = etree.Element("disk", type="file", device="disk")
    # Its contents need not survive a crash of the host. If the pool is full, the guest gets an
    # error; by default QEMU would pause it.
    etree.SubElement(disk, "driver", name="qemu", type="raw", cache="unsafe", error_policy="report")
    etree.SubElement(disk, "source", file=path)
    etree.SubElement(disk, "target", dev=target, bus="virtio")
    etree.SubElement(disk, "serial").text = serial
    if read_only:
        etree.SubElement(disk, "readonly")
    return disk


def _target(domain: Domain) -> str:
    """Return libvirt's name for one more disk: the last one that is free."""
    used = {one.get("dev") for one in select(parse(domain.XMLDesc(0)), "devices/disk/target")}
    names = (f"vd{letter}" for letter in reversed(string.ascii_lowercase))
    free = next((name for name in names if name not in used), None)
    if free is None:
        raise MissingCapability(f"{domain.name()} has too many disks")
    return free
