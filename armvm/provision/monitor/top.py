"""Resource usage of machines, computed from two samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Annotated

from armvm.base.result import Cpus, Doc, MachineName, MemoryMib, Size
from armvm.host.connection import Connection, not_running
from armvm.host.domain.instance import Instance, instances
from armvm.host.domain.stats import Sample, samples

__all__ = ["Usage", "not_running", "usage", "usages"]


Rate = Annotated[int, Doc("Bytes a second.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a running machine used between two samples."""

    name: Annotated[MachineName, Doc("The machine.")]
    state: Annotated[str, Doc("The domain's state.")]
    cpus: Annotated[Cpus, Doc("Number of vCPUs, as defined.")]
    cpu_percent: Annotated[
        float | None,
        Doc("Host CPU usage in percent of one CPU; null: just started.", minimum=0),
    ]
    memory_mib: Annotated[MemoryMib, Doc("Memory in MiB, as defined.")]
    resident: Annotated[
        Size | None,
        Doc("Host memory of its QEMU in bytes; clones include the memory that they share."),
    ]
    disk_read: Annotated[Rate | None, Doc("Read from its disks, in bytes a second; null: unknown.")]
    disk_write: Annotated[
        Rate | None, Doc("Written to its disks, in bytes a second; null: unknown.")
    ]
    net_receive: Annotated[
        Rate | None, Doc("Received by its network cards, in bytes a second; null: unknown.")
    ]
    net_send: Annotated[
        Rate | None, Doc("Sent by its network cards, in bytes a second; null: unknown.")
    ]


def usages(
    connection: Connection,
    interval: float,
    only: Collection[str] | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[Usage]]:
    """Yield, every *interval* seconds, the usage of each running machine since the last sample.

    With *only*, include only machines with these UUIDs. The busiest machine comes first. CPU is in
    percent of one host CPU, rates are in bytes a second. A value is None if libvirt does not count
    it, or if the machine has just started.
    """
    before = _look(connection, only)[1]
    while True:
        sleep(interval)
        machines, now = _look(connection, only)
        rows = [usage(machines[uuid], before.get(uuid), one) for uuid, one in now.items()]
        yield sorted(rows, key=lambda row: (-(row.cpu_percent or 0.0), row.name))
        before = now


def usage(instance: Instance, before: Sample | None, now: Sample) -> Usage:
    """Return what a machine used between two samples."""

    def rate(what: Callable[[Sample], float | None]) -> float | None:
        earlier, later = None if before is None else what(before), what(now)
        # A smaller counter means that the machine was restarted.
        if before is None or earlier is None or later is None or later < earlier:
            return None
        return (later - earlier) / max(now.at - before.at, 0.001)

    cpu = rate(lambda one: one.cpu)
    rates = {
        "disk_read": rate(lambda one: one.disk_read),
        "disk_write": rate(lambda one: one.disk_written),
        "net_receive": rate(lambda one: one.net_received),
        "net_send": rate(lambda one: one.net_sent),
    }
    return Usage(
        name=instance.name,
        state=instance.state,
        cpus=instance.cpus,
        cpu_percent=None if cpu is None else round(100 * cpu, 1),
        memory_mib=instance.memory_mib,
        resident=now.resident,
        **{key: None if value is None else round(value) for key, value in rates.items()},
    )


def _look(
    connection: Connection, only: Collection[str] | None
) -> tuple[dict[str, Instance], dict[str, Sample]]:
    machines = {one.uuid: one for one in instances(connection) if only is None or one.uuid in only}
    return machines, samples(connection, machines.keys())
