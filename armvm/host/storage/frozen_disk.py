"""Freeze a running machine's disk while it is copied: its writes go to an overlay.

libvirt puts an overlay on top of the disk, with the guest's file systems frozen for that moment
if its agent can; afterwards the overlay is merged back into the disk and dropped. The guest keeps
running throughout. Source: libvirt-domain.html, virDomainSnapshotCreateXML with
VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY, and virDomainBlockCommit with
VIR_DOMAIN_BLOCK_COMMIT_ACTIVE.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import libvirt
from lxml import etree

from armvm.base.errors import DomainError
from armvm.base.signals import shielded
from armvm.host.agent import agent
from armvm.host.connection import Domain, Pool, errors
from armvm.host.storage import pools, volumes
from armvm.host.xml import at, parse, select, to_text

#: The name of the overlay for a disk's writes while it is copied. Deleting the machine finds it by
#: its snapshot name.
_MEANWHILE = "snap-.meanwhile"
_POLL = 0.1


@contextmanager
def standing_still(pool: Pool, domain: Domain) -> Iterator[bool]:
    """Prevent writes to a running machine's first disk during the block.

    Yields whether its file systems were frozen: if not, the disk is as after a power cut. Raises
    DomainError. The machine must be on its own disk.
    """
    with errors(f"reading {domain.name()}"):
        disk = at(parse(domain.XMLDesc(0)), "devices/disk[1]")
    target = at(disk, "target").get("dev", "")
    path = at(disk, "source").get("file", "")
    meanwhile = str(PurePosixPath(path).with_name(f"{domain.name()}.{_MEANWHILE}.qcow2"))
    leftover = volumes.find_volume(pool, PurePosixPath(meanwhile).name)
    if leftover is not None:  # its contents were merged since
        volumes.delete_volume(leftover)
    with shielded():
        frozen = _divert(domain, target, meanwhile)
    try:
        yield frozen
    finally:
        with shielded():
            _merge(domain, target, path)
            with errors("reading the storage pool"):
                pools.refresh(pool)
            volume = volumes.find_volume(pool, PurePosixPath(meanwhile).name)
            if volume is not None:
                volumes.delete_volume(volume)


def _divert(domain: Domain, target: str, meanwhile: str) -> bool:
    """Redirect a disk's writes to a new overlay; return whether the guest was frozen for it."""
    document = etree.Element("domainsnapshot")
    disks = etree.SubElement(document, "disks")
    with errors(f"reading {domain.name()}"):
        devices = select(parse(domain.XMLDesc(0)), "devices/disk/target")
    for device in devices:
        ours = device.get("dev") == target
        disk = etree.SubElement(disks, "disk", name=device.get("dev", ""))
        disk.set("snapshot", "external" if ours else "no")
        if ours:
            etree.SubElement(disk, "source", file=meanwhile)
    flags = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    )
    text = to_text(document)
    if agent.connected(domain):
        quiesce = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
        with contextlib.suppress(libvirt.libvirtError):
            domain.snapshotCreateXML(text, flags | quiesce)
            return True
    with errors(f"freezing the disk of {domain.name()}"):
        domain.snapshotCreateXML(text, flags)
    return False


def _merge(domain: Domain, target: str, path: str) -> None:
    """Merge a disk's overlay back into the file *path*, and make the machine write there again."""
    flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
    with errors(f"merging the overlay of {domain.name()}"):
        domain.blockCommit(target, None, None, 0, flags)
        while True:
            job = domain.blockJobInfo(target, 0)
            if not job:
                raise DomainError(f"the overlay of {domain.name()} was not merged back")
            if job["cur"] == job["end"]:
                try:
                    domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
                    break
                except libvirt.libvirtError as error:
                    if "not ready" not in str(error):
                        raise
            time.sleep(_POLL)
        now = at(parse(domain.XMLDesc(0)), "devices/disk[1]/source").get("file")
    if now != path:
        raise DomainError(f"the disk of {domain.name()} is still {now}")
