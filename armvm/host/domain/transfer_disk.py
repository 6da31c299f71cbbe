"""A disk that is plugged into a running machine to carry many bytes, and used once.

The guest unplugs it; see `armvm.guest.agents.command_server`. It is not in the machine's
definition.
"""

from __future__ import annotations

import string

import libvirt
from lxml import etree

from armvm.base.errors import MissingCapability
from armvm.host.connection import Domain, errors
from armvm.host.domain.shared_directories import has_free_port
from armvm.host.xml import parse, select, to_text


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
