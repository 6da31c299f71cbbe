"""Machines that another program starts, changes or writes to while armvm works on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest
from lxml import etree

from armvm.base.errors import Conflict, DomainError, HostError
from armvm.base.progress import Quiet
from armvm.host.connection import connect
from armvm.host.domain import disks as host_disks
from armvm.host.domain import lifecycle
from armvm.host.domain.handle import Handle, observed
from armvm.host.domain.instance import observe, set_record
from armvm.host.domain.metadata import Snapshot, to_element
from armvm.host.storage import pools, volumes
from armvm.host.xml import at, parse, select, to_text
from armvm.provision.access import forward
from armvm.provision.machine.own_disk import left_alone
from armvm.provision.manage import disk, rename, resize, snapshot
from armvm.settings.ports import parse_forward
from tests.unit.host_tools import RECORD

pytestmark = pytest.mark.unit

POOL = "default-pool"
FIRST, SECOND = (
    Snapshot(name=name, created="2026-01-02T03:04:05Z", state="off") for name in ("first", "second")
)
FIRST_PORT, SECOND_PORT = parse_forward("8080:80"), parse_forward("8443:443")


@pytest.fixture
def machine() -> Iterator[Handle]:
    """A stopped machine called m in libvirt's test driver, with a root disk and another one."""
    connection = connect("test:///default")
    pool = pools.need_pool(connection, POOL, "m")
    files = [
        volumes.create_disk(pool, name, 1 << 20, "qcow2").path()
        for name in ("m.qcow2", "m.disk-data.qcow2", "m.snap-first.qcow2")
    ]
    devices = "".join(
        f"<disk type='file'><driver name='qemu' type='qcow2'/><source file='{file}'/>"
        f"<target dev='vd{letter}'/></disk>"
        for file, letter in zip(files, "ab", strict=False)
    )
    document = etree.fromstring(
        "<domain type='test'><name>m</name><metadata/><memory unit='MiB'>8</memory>"
        f"<vcpu>1</vcpu><os><type arch='aarch64'>hvm</type></os><devices>{devices}</devices>"
        "</domain>"
    )
    record = replace(RECORD, pool=POOL, snapshots=(FIRST,))
    at(document, "metadata").append(to_element(record))
    domain = lifecycle.define(connection, to_text(document), "m")
    yield observed(connection, domain)
    with contextlib.suppress(Exception):
        domain.destroy()
    domain.undefine()
    for volume in volumes.machine_volumes(pool, "m").values():
        volumes.delete_volume(volume)
    connection.close()


class Lacking:
    """A domain of the test driver, with what that lacks: a guest that keeps its disks, and vCPUs
    that cannot be changed.
    """

    def __init__(self, domain: Any) -> None:
        self._domain = domain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    def detachDeviceFlags(self, text: str, flags: int) -> None:
        if flags & libvirt.VIR_DOMAIN_AFFECT_CONFIG:
            document = parse(self._domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            target = at(parse(text), "target").get("dev")
            for one in select(document, f"devices/disk[target/@dev='{target}']"):
                at(document, "devices").remove(one)
            self._domain.connect().defineXML(to_text(document))

    def vcpusFlags(self, _flags: int) -> int:
        raise libvirt.libvirtError("no")


def names(machine: Handle) -> set[str]:
    pool = pools.need_pool(machine.connection, POOL, "m")
    return {"m" + suffix for suffix in volumes.machine_volumes(pool, "m")}


def test_a_machine_that_was_started_since_is_not_reverted(machine: Handle) -> None:
    machine.domain.create()
    with pytest.raises(Conflict, match="m runs: only a stopped machine can be reverted"):
        snapshot.revert(machine, "first", Quiet())
    assert "m.qcow2" in names(machine)


def test_a_machine_that_is_started_before_the_last_step_is_not_reverted(
    machine: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "physical_size", lambda _: machine.domain.create() or 1)
    with pytest.raises(Conflict, match="only a stopped machine"):
        snapshot.revert(machine, "first", Quiet())
    assert "m.qcow2" in names(machine)


def test_the_disk_of_a_machine_that_was_started_since_is_not_deleted(
    machine: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, made = disk.check_removable(machine, "vdb")
    assert made
    machine.domain.create()
    monkeypatch.setattr(host_disks, "_DETACH_PATIENCE", 0.1)
    machine = replace(machine, domain=Lacking(machine.domain))
    assert disk.remove(machine, found, keep=False, progress=Quiet()).later
    assert "m.disk-data.qcow2" in names(machine)


def test_what_another_process_recorded_stays(
    machine: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_record(
        machine.domain, replace(machine.record, snapshots=(FIRST, SECOND), ports=(FIRST_PORT,))
    )
    snapshot.delete(machine, "first")
    assert forward.add(machine, "8443:443") == SECOND_PORT
    record = observe(machine.domain).record
    assert (record.snapshots, record.ports) == ((SECOND,), (FIRST_PORT, SECOND_PORT))
    stale = machine.again()
    set_record(machine.domain, replace(record, snapshots=(FIRST, SECOND)))
    forward.remove(stale, "8080")
    record = observe(machine.domain).record
    assert (record.snapshots, record.ports) == ((FIRST, SECOND), (SECOND_PORT,))


def test_a_machine_that_is_started_during_a_copy_is_a_conflict(machine: Handle) -> None:
    volume = volumes.need_volume(pools.need_pool(machine.connection, POOL, "m"), "m.qcow2")
    with left_alone(machine, volume):
        pass
    with pytest.raises(Conflict, match="m was started while"), left_alone(machine, volume):
        machine.domain.create()
    with pytest.raises(Conflict, match="m runs"), left_alone(machine, volume):
        pass


def test_a_disk_that_was_written_to_during_a_copy_is_a_conflict(machine: Handle) -> None:
    # The test driver knows no times of files.
    times = iter("12")
    volume: Any = SimpleNamespace(
        name=lambda: "m.qcow2",
        XMLDesc=lambda _flags: (
            f"<volume><target><timestamps><mtime>{next(times)}</mtime></timestamps></target></volume>"
        ),
    )
    with pytest.raises(Conflict, match="disk of m changed"), left_alone(machine, volume):
        pass


def test_no_snapshot_is_left_of_a_machine_that_was_started_meanwhile(
    machine: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def duplicate(_connection: object, pool: Any, name: str, *_: object) -> Any:
        machine.domain.create()
        return volumes.create_disk(pool, name, 1 << 20, "qcow2")

    # The test driver reads and writes no volumes.
    monkeypatch.setattr(volumes, "physical_size", lambda _: 1)
    monkeypatch.setattr(snapshot, "duplicate", duplicate)
    with pytest.raises(Conflict, match="m was started while"):
        snapshot.create(machine, "second", Quiet())
    assert "m.snap-second.qcow2" not in names(machine)
    assert observe(machine.domain).record.snapshots == (FIRST,)


def test_a_machine_that_runs_on_its_old_files_is_not_renamed(machine: Handle) -> None:
    moved = {file: file.replace("/m.", "/n.") for file in [machine.instance.overlay or ""]}
    machine.domain.create()
    rename._assert_not_started(machine, {"/elsewhere": "/n"})
    with pytest.raises(Conflict, match="m was started while armvm renamed it"):
        rename._assert_not_started(machine, moved)
    with pytest.raises(DomainError, match="virsh domrename n m"):
        rename._rename_back(machine, "n")


def test_each_step_of_a_resize_is_recorded(
    machine: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resize, "_check_rest", lambda *_: None)  # the test driver has no ARM64
    machine = replace(machine, domain=Lacking(machine.domain))
    with pytest.raises(HostError):
        resize.resize(machine, disk=None, memory_mib=1024, cpus=2, progress=Quiet())
    record = observe(machine.domain).record
    assert record.settings["memory_mib"] == 1024
