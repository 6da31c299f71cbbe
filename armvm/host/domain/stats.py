"""Resource usage of running domains, from one query for all of them.

Source: libvirt-domain.html, virConnectGetAllDomainStats. A host without cgroups omits ``cpu.time``
there; virDomainGetInfo has it then. Traffic of user networking is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import libvirt

from armvm.host.connection import Connection, Domain, errors

_STATS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A domain's usage since its start, at a moment of the monotonic clock in seconds.

    ``cpu`` is in seconds, ``resident`` in bytes of host memory, the others in bytes; None if
    libvirt does not count them.
    """

    at: float
    cpu: float | None
    resident: int | None
    disk_read: int | None
    disk_written: int | None
    net_received: int | None
    net_sent: int | None


def samples(connection: Connection, uuids: Collection[str]) -> dict[str, Sample]:
    """Return a sample of each running domain whose UUID is among *uuids*, by UUID."""
    found = {}
    with errors("reading the machines' statistics"):
        running = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        for domain, told in connection.getAllDomainStats(_STATS, running):
            uuid = domain.UUIDString()
            if uuid not in uuids:
                continue
            try:
                nanoseconds = told["cpu.time"] if "cpu.time" in told else domain.info()[4]
            except libvirt.libvirtError:
                continue  # it stopped in between
            found[uuid] = sample_of(told, cpu=int(nanoseconds) / 1e9, at=time.monotonic())
    return found


def sample_of(told: dict[str, Any], *, cpu: float, at: float) -> Sample:
    """Return the sample from libvirt's statistics of a domain."""
    resident = told.get("balloon.rss")
    return Sample(
        at=at,
        cpu=cpu,
        resident=None if resident is None else int(resident) << 10,
        disk_read=_sum(told, "block", "rd.bytes"),
        disk_written=_sum(told, "block", "wr.bytes"),
        net_received=_sum(told, "net", "rx.bytes"),
        net_sent=_sum(told, "net", "tx.bytes"),
    )


def _sum(told: dict[str, Any], group: str, what: str) -> int | None:
    keys = (f"{group}.{index}.{what}" for index in range(int(told.get(f"{group}.count", 0))))
    counts = [int(told[key]) for key in keys if key in told]
    return sum(counts) if counts else None


def resident_mib(domain: Domain) -> int:
    """Return the host's memory that a machine takes, in MiB; 0 if it has ended."""
    try:
        return int(domain.memoryStats().get("rss", 0)) // 1024
    except libvirt.libvirtError:
        return 0
