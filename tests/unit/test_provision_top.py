"""Rates from two looks at libvirt's statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from armvm.host.domain.stats import sample_of
from armvm.provision.monitor.top import usage
from tests.unit.host_tools import INSTANCE

#: As libvirt 9.0 tells it of a machine with two disks and user networking.
TOLD: dict[str, Any] = {
    "cpu.time": 5_000_000_000,
    "balloon.rss": 512,
    "net.count": 1,
    "block.count": 2,
    "block.0.rd.bytes": 1000,
    "block.1.rd.bytes": 500,
    "block.0.wr.bytes": 0,
}


def test_rates_are_over_the_time_between() -> None:
    before = sample_of(TOLD, cpu=5.0, at=10.0)
    later = {**TOLD, "block.1.rd.bytes": 2500, "net.0.rx.bytes": 7}
    row = usage(INSTANCE, before, sample_of(later, cpu=8.0, at=12.0))
    assert row.cpu_percent == 150.0
    assert row.disk_read == 1000
    assert row.disk_write == 0
    assert row.resident == 512 << 10
    assert row.net_receive is None, "there was no count before"
    assert row.net_send is None


def test_a_machine_that_has_just_started_has_no_rates() -> None:
    now = sample_of(TOLD, cpu=5.0, at=10.0)
    assert usage(INSTANCE, None, now).cpu_percent is None
    anew = usage(INSTANCE, replace(now, cpu=9.0, disk_read=9999), replace(now, at=11.0))
    assert anew.cpu_percent is None
    assert anew.disk_read is None
    assert anew.disk_write == 0
