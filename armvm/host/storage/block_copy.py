"""Detach disks from their backing files by libvirt's block jobs, over any connection.

A block job copies the data between the disk and its new base into the disk, while the guest
runs. Until it has ended the disk keeps its old chain, so ending it early (or losing the process)
changes nothing. For a machine that is off, armvm starts a paused QEMU, which never runs the guest
and which libvirt ends when this connection closes.
Source: libvirt-domain.html, virDomainBlockRebase, virDomainBlockPull, VIR_DOMAIN_START_AUTODESTROY.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import libvirt
from lxml import etree

from armvm.base.errors import DomainError
from armvm.base.poll import until
from armvm.base.signals import shielded
from armvm.host.connection import Connection, Domain, errors
from armvm.host.xml import at, parse, select, to_text

#: Called with the number of bytes done, and the total.
OnBytes = Callable[[int, int], None]
#: Seconds between two checks of a block job.
POLL = 0.2
#: Devices that a paused guest does not need. A log would be emptied, a port be in use.
_NEEDLESS = (
    "devices/interface | devices/serial | devices/console | devices/channel | devices/graphics"
    " | devices/video | devices/input | devices/rng | devices/sound | devices/audio"
    " | devices/hostdev | devices/redirdev | devices/filesystem | devices/disk[position() > 1]"
)


def snapshots(domain: Domain) -> int:
    """Return how many snapshots a domain has."""
    with errors(f"reading {domain.name()}"):
        return int(domain.snapshotNum(0))


def has_saved_state(domain: Domain) -> bool:
    """Return whether a domain that is off has a saved state to resume from."""
    with errors(f"reading {domain.name()}"):
        return bool(domain.hasManagedSaveImage(0))


def source_chain(domain: Domain) -> list[str]:
    """Return the files of a running domain's first disk, the top one first."""
    with errors(f"reading {domain.name()}"):
        element: etree._Element | None = at(parse(domain.XMLDesc(0)), "devices/disk[1]")
    files = []
    while element is not None:
        source = element.find("source")
        if source is not None:
            files.append(source.get("file", ""))
        element = element.find("backingStore")
    return files


@contextmanager
def held(connection: Connection, domain: Domain) -> Iterator[Domain]:
    """Hold the first disk of a domain that is off in a QEMU that stays paused.

    The domain's definition is unchanged, and no device but the disk is used.
    Raises DomainError if it does not start.
    """
    with errors(f"reading {domain.name()}"):
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        document = parse(domain.XMLDesc(flags))
    for element in select(document, _NEEDLESS):
        at(document, "devices").remove(element)
    start = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
    running: Domain | None = None
    try:
        # A signal during the start is raised at the end of the block, inside the outer one.
        with shielded(), errors(f"opening the disk of {domain.name()}"):
            running = connection.createXML(to_text(document), start)
        yield running
    finally:
        if running is not None:
            with shielded(), contextlib.suppress(libvirt.libvirtError):
                running.destroy()


def rebase(
    domain: Domain,
    base: str | None,
    on_bytes: OnBytes,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Rebase a running domain's first disk to the file *base* of its chain; None: to no file.

    Calls *on_bytes* with the bytes done and the total. If it ends early, the disk keeps its
    old chain. Raises DomainError.
    """

    def done() -> bool:
        job = domain.blockJobInfo(disk, 0)
        if job:
            on_bytes(int(job["cur"]), int(job["end"]))
        return not job

    with errors(f"rebasing the disk of {domain.name()}"):
        disk = at(parse(domain.XMLDesc(0)), "devices/disk[1]/target").get("dev", "")
        if base is None:
            domain.blockPull(disk, 0, 0)
        else:
            domain.blockRebase(disk, base, 0, 0)
        try:
            until(done, timeout=None, interval=POLL, sleep=sleep)
        except BaseException:
            with shielded(), contextlib.suppress(libvirt.libvirtError):
                domain.blockJobAbort(disk, 0)
            raise
    left = source_chain(domain)
    if left[1:2] != ([base] if base else []):
        raise DomainError(
            f"the disk of {domain.name()} is still backed by {', '.join(left[1:]) or 'no file'}",
            hint="check QEMU's log: /var/log/libvirt/qemu",
        )
