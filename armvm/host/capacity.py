"""A host's versions and resources, for `armvm hosts`: also of one that lacks ARM64 emulation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import libvirt

from armvm.base import process
from armvm.base.errors import ArmvmError, MissingCapability
from armvm.host import facts
from armvm.host.connection import Connection, errors, is_local, uri_of
from armvm.host.facts import HostFacts

_VERSION = re.compile(r"version (\d+(?:\.\d+)+)")
#: Where the kernel says how much memory programs could have, in KiB.
_MEMINFO = Path("/proc/meminfo")
_AVAILABLE = re.compile(r"^MemAvailable: +(\d+) kB$", re.MULTILINE)
#: Seconds that a local QEMU has to print its version.
_TIMEOUT = 10


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """A host's versions and resources; memory is in MiB.

    ``facts`` is None if the host cannot run ARM64 machines, and ``lack`` says why. ``qemu`` is
    None if the version cannot be found out. ``free_mib`` counts caches as free, as the kernel can
    drop them. ``running_vcpus`` belong to all running domains, also to those of others.
    """

    libvirt: str
    qemu: str | None
    facts: HostFacts | None
    lack: str | None
    cpus: int
    running_vcpus: int
    memory_mib: int
    free_mib: int


def measure(connection: Connection) -> Capacity:
    """Ask a host for its versions and resources."""
    found, lack = None, None
    try:
        found = facts.observe(connection)
    except MissingCapability as error:
        lack = error.message
    with errors("reading the host's resources"):
        node = connection.getInfo()
        return Capacity(
            libvirt=version_text(connection.getLibVersion()),
            qemu=_qemu(connection, found),
            facts=found,
            lack=lack,
            cpus=node[2],
            running_vcpus=sum(map(_vcpus, _running(connection))),
            memory_mib=node[1],
            free_mib=free_mib(connection),
        )


def version_text(number: int) -> str:
    """Return a version as libvirt counts it: 9000001 is 9.0.1."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _qemu(connection: Connection, found: HostFacts | None) -> str | None:
    """Return QEMU's version, from the emulator itself on this host.

    libvirt knows only the version of the emulator for the host's own architecture, which comes from
    the same sources, and fails where only another is installed.
    """
    if found is not None and found.local:
        try:
            done = process.run([found.emulator, "--version"], timeout=_TIMEOUT)
        except ArmvmError:
            return None
        match = _VERSION.search(done.text)
        return match[1] if match else None
    try:
        return version_text(connection.getVersion())
    except libvirt.libvirtError:
        return None


def _running(connection: Connection) -> list[libvirt.virDomain]:
    return list(connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE))


def _vcpus(domain: libvirt.virDomain) -> int:
    try:
        return int(domain.info()[3])
    except libvirt.libvirtError:  # stopped since it was listed
        return 0


def free_mib(connection: Connection) -> int:
    """Return the memory that a new machine could have, in MiB.

    On a remote host, shared memory counts as free, because libvirt counts it among the caches.
    """
    uri = uri_of(connection)
    available = None
    if is_local(uri) and not uri.startswith("test:"):
        available = _AVAILABLE.search(_MEMINFO.read_text())
    if available is not None:
        return int(available[1]) >> 10
    with errors("reading the host's memory"):
        try:
            told = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        except libvirt.libvirtError:  # libvirt's test driver has none
            return int(connection.getFreeMemory()) >> 20
        return sum(int(told.get(key, 0)) for key in ("free", "buffers", "cached")) >> 10
