"""What machines use of the host: from two looks, how much in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from armvm.host.connection import Connection, not_running
from armvm.host.domain.instance import Instance, instances
from armvm.host.domain.stats import Sample, samples

__all__ = ["not_running", "usage", "usages"]


def usages(
    connection: Connection,
    interval: float,
    only: Collection[str] | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[dict[str, Any]]]:
    """Yield, each *interval* seconds, what each running machine used since the look before.

    With *only*, those with these UUIDs.

    The busiest comes first. CPU is in percent of one host CPU, rates in bytes a second; None is
    what libvirt does not count, and what a machine that has just started has no rate of yet.
    """
    before = _look(connection, only)[1]
    while True:
        sleep(interval)
        machines, now = _look(connection, only)
        rows = [usage(machines[uuid], before.get(uuid), one) for uuid, one in now.items()]
        yield sorted(rows, key=lambda row: (-(row["cpu_percent"] or 0.0), row["name"]))
        before = now


def usage(instance: Instance, before: Sample | None, now: Sample) -> dict[str, Any]:
    """Return what a machine used between two samples, as plain values."""

    def rate(what: Callable[[Sample], float | None]) -> float | None:
        earlier, later = None if before is None else what(before), what(now)
        # Less than before means that the machine has started anew.
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
    return {
        "name": instance.name,
        "state": instance.state,
        "cpus": instance.cpus,
        "cpu_percent": None if cpu is None else round(100 * cpu, 1),
        "memory_mib": instance.memory_mib,
        "resident": now.resident,
        **{key: None if value is None else round(value) for key, value in rates.items()},
    }


def _look(
    connection: Connection, only: Collection[str] | None
) -> tuple[dict[str, Instance], dict[str, Sample]]:
    machines = {one.uuid: one for one in instances(connection) if only is None or one.uuid in only}
    return machines, samples(connection, machines.keys())
