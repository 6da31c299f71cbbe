"""Disks that carry bytes: how long they may get, and what happens if a guest keeps one."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest

from armvm.base.errors import CommandFailed, StorageError
from armvm.base.progress import Plain
from armvm.guest.agents.command_server import START
from armvm.host.connection import connect
from armvm.host.domain import transfer_disk
from armvm.host.domain.handle import Handle
from armvm.host.storage import pools, volumes
from armvm.host.xml import at, parse, select, to_text
from armvm.provision.access import channel_stream
from armvm.provision.access.channel_command import Command
from armvm.provision.access.channel_stream import LONG, disk_size
from tests.unit.host_tools import INSTANCE, RECORD

pytestmark = pytest.mark.unit

GIB = 1 << 30
SERIAL = "0123456789abcdef"


class Guest:
    """A running domain of the test driver with a disk, which that driver cannot unplug."""

    def __init__(self, connection: Any, *, releases: bool) -> None:
        self._domain = connection.createXML(
            "<domain type='test'><name>m</name><memory>1024</memory><os><type>hvm</type></os>"
            "<devices><disk type='file'><source file='/x'/><target dev='vda'/></disk>"
            "<disk type='file'><source file='/y'/><target dev='vdz'/>"
            f"<serial>{SERIAL}</serial></disk></devices></domain>"
        )
        self._releases, self._gone = releases, False
        self.asked: list[str] = []
        self.resized: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    def XMLDesc(self, flags: int) -> str:
        document = parse(self._domain.XMLDesc(flags))
        if self._gone:
            at(document, "devices").remove(select(document, "devices/disk")[1])
        return to_text(document)

    def detachDeviceFlags(self, text: str, flags: int) -> None:
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        self.asked.append(parse(text).findtext("serial", ""))
        self._gone = self._releases
        if not self._releases:
            raise libvirt.libvirtError("the guest does not answer")

    def blockResize(self, target: str, size: int, _flags: int) -> None:
        self.resized.append((target, size))


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(transfer_disk, "_OWN_PATIENCE", 0.1)
    monkeypatch.setattr(transfer_disk, "_ASKED_PATIENCE", 0.1)
    opened: Any = connect("test:///default")
    yield opened
    with contextlib.suppress(libvirt.libvirtError):
        opened.lookupByName("m").destroy()
    opened.close()


def test_a_disk_that_the_guest_keeps_is_unplugged_or_shrunk(connection: Any) -> None:
    guest: Any = Guest(connection, releases=True)
    assert transfer_disk.unplug(guest, "another", 1)
    assert guest.asked == []
    assert transfer_disk.unplug(guest, SERIAL, 1)
    assert (guest.asked, guest.resized) == ([SERIAL], [])
    guest.destroy()
    guest = Guest(connection, releases=False)
    assert not transfer_disk.unplug(guest, SERIAL, 1)
    assert guest.resized == [("vdz", 1 << 20)]


def pool_with(free: int) -> Any:
    return SimpleNamespace(
        name=lambda: "p", refresh=lambda _flags: None, info=lambda: [2, 2 * free, free, free]
    )


def test_a_disk_has_room_for_what_was_announced() -> None:
    size = disk_size(pool_with(100 * GIB), GIB)
    assert START + GIB < size < 1.3 * GIB
    assert size % (1 << 20) == 0


def test_a_guest_cannot_fill_the_pool() -> None:
    assert disk_size(pool_with(100 * GIB), 0) == 87 * GIB + GIB // 2
    assert disk_size(pool_with(1 << 50), 0) == 1 << 40
    for free, announced in ((100 * GIB, 80 * GIB), (100 * GIB, 1 << 62), (LONG, 0), (0, 0)):
        with pytest.raises(StorageError, match="too much"):
            disk_size(pool_with(free), announced)


@pytest.mark.parametrize("announced", [LONG + 1, 1 << 60, 0])
def test_long_output_goes_on_a_disk_of_its_length(
    connection: Any, monkeypatch: pytest.MonkeyPatch, announced: int
) -> None:
    """The command's first run tells how long its output is; here each run fails."""
    guest: Any = Guest(connection, releases=False)
    record = replace(RECORD, pool="default-pool")
    machine = Handle(
        connection=connection,
        domain=guest,
        instance=replace(INSTANCE, name="m", record=record),
    )
    made: list[int] = []
    plain: list[bool] = []

    def create_hole(pool: Any, name: str, size: int) -> Any:
        made.append(size)
        return volumes.create_disk(pool, name, 1 << 20, "raw")

    def execute(*_: object, stdout: Any, **__: object) -> int:
        plain.append(True)
        stdout(b"x" * (LONG + 1))
        return 0

    monkeypatch.setattr(volumes, "create_hole", create_hole)
    monkeypatch.setattr(channel_stream, "plug", lambda *_, **__: None)
    monkeypatch.setattr(channel_stream, "execute", execute)
    monkeypatch.setattr(channel_stream, "unplug", lambda *_: False)
    told = io.StringIO()
    with contextlib.suppress(CommandFailed):
        channel_stream.stream(
            machine,
            Command(words=["x"], user="root"),
            lambda _out: None,
            lambda source: source.read(1),
            Plain(told),
            only_reads=True,
            expected=lambda output: announced if output else 0,
        )
    pool = pools.need_pool(connection, "default-pool", "m")
    assert volumes.machine_volumes(pool, "m") == {}
    if announced == 1 << 60:
        assert made == []
        assert "copying through the channel" in told.getvalue()
    else:
        assert made == [disk_size(pool, announced)]
        assert "did not release a disk" in told.getvalue()
