"""Pools in libvirt's test driver: who has a member, and what is removed when."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from lxml import etree

from armvm.base.errors import Conflict, NotReady
from armvm.base.progress import Quiet
from armvm.host.agent import channel
from armvm.host.connection import connect
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import build
from armvm.host.domain.golden_domain import Golden, Mark, find_golden, set_mark, without_record
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import find_domain, observe, set_record
from armvm.host.domain.metadata import Creator, PoolMember, Record, from_element, to_element
from armvm.host.storage import pools
from armvm.host.xml import at, to_text
from armvm.provision.golden import choose, goldens, pool
from armvm.provision.golden.choose import Warm
from armvm.provision.launch import launch, run
from armvm.provision.machine import delete
from armvm.provision.machine.create import Where
from armvm.provision.machine.unfinished import myself
from armvm.settings.machine import Machine
from tests.unit.host_tools import TCG_HOST, facts_of
from tests.unit.test_warm import RECORD, SHAPE, SPEC

DEAD = Creator(host=myself().host, pid=1 << 30, started=1)
WAITING = PoolMember(state="s", waiting=True)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A connection to libvirt's test driver, whose domains have no NVRAM to remove."""

    def remove(machine: Handle) -> list[str]:
        found = machine.again()
        removed.append((found.name, found.record))
        machine.domain.destroy()
        machine.domain.undefine()
        return []

    removed: list[tuple[str, Record]] = []
    for module in (delete, pool, launch):
        monkeypatch.setattr(module, "delete_domain", remove)
    opened = connect("test:///default")
    opened.removed = removed
    yield opened
    for domain in opened.listAllDomains():
        if domain.name() != "test":
            with contextlib.suppress(Exception):
                domain.destroy()
            domain.undefine()


def define_golden(connection: Any, size: int = 1) -> Golden:
    document = build(replace(SPEC, name="gold"), RECORD)
    document.set("type", "test")
    without_record(document)
    mark = Mark(created="", shape=SHAPE, ground={}, state_digest="s", record=RECORD, pool=size)
    set_mark(document, mark)
    lifecycle.define(connection, to_text(document), "gold")
    return find_golden(connection, "gold")


def member(connection: Any, name: str, found: PoolMember, creator: Creator | None = None) -> Any:
    """Define and start a member; one that waits is suspended."""
    text = (
        f"<domain type='test'><name>{name}</name><metadata/><memory unit='MiB'>8</memory>"
        "<vcpu>1</vcpu><os><type arch='aarch64'>hvm</type></os><devices><disk type='file'>"
        f"<source file='/pool/{name}.qcow2'/><target dev='vda'/></disk></devices></domain>"
    )
    document = etree.fromstring(text)
    record = replace(RECORD, golden="gold", member=found, creator=creator)
    at(document, "metadata").append(to_element(record))
    domain = lifecycle.define(connection, to_text(document), name)
    domain.create()
    if found.waiting:
        domain.suspend()
    return domain


def test_the_record_tells_who_has_a_member() -> None:
    for one in (WAITING, PoolMember(state="s"), PoolMember(state="s", taken=True)):
        record = replace(RECORD, member=one)
        assert from_element(to_element(record)) == record


def test_a_machine_in_use_is_not_being_made(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "unusable", lambda *_: None)
    monkeypatch.setattr(pool, "resident_mib", lambda _: 0)
    define_golden(connection)
    member(connection, "ready", WAITING)
    member(connection, "used", PoolMember(state="s", taken=True), myself())
    member(connection, "made", PoolMember(state="s"), myself())
    (state,) = pool.states(Where(connection=connection, facts=facts_of(TCG_HOST)))
    assert (state.machines, state.ready, state.starting) == (["ready"], 1, 1)


def test_a_member_that_is_removed_does_not_wait(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test driver has no channels.
    monkeypatch.setattr(channel, "opened", lambda *_, **__: contextlib.nullcontext())
    golden = define_golden(connection)
    member(connection, "ready", WAITING)
    assert pool.remove(connection, golden) == ["ready"]
    ((_, record),) = connection.removed
    assert (record.member, record.creator) == (PoolMember(state="s", taken=True), myself())


def test_a_golden_in_use_keeps_its_pool(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    define_golden(connection)
    member(connection, "ready", WAITING)
    member(connection, "dead", PoolMember(state="s"), DEAD)
    volumes = ["ready.qcow2", "dead.qcow2", "clone.qcow2"]
    monkeypatch.setattr(pools, "find_pool", lambda *_: object())
    monkeypatch.setattr(goldens, "users_of", lambda *_: volumes)
    monkeypatch.setattr(channel, "opened", lambda *_, **__: contextlib.nullcontext())
    with pytest.raises(Conflict, match="clone") as caught:
        goldens.delete(connection, "gold")
    assert "ready" not in str(caught.value)
    assert connection.removed == []
    volumes.remove("clone.qcow2")
    with pytest.raises(Conflict):  # these volumes stay
        goldens.delete(connection, "gold")
    assert sorted(name for name, _ in connection.removed) == ["dead", "ready"]


@pytest.mark.parametrize("error", [NotReady("no address"), KeyboardInterrupt()], ids=repr)
def test_run_removes_a_taken_machine_that_is_not_ready(
    connection: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    used = member(connection, "used", WAITING)
    member(connection, "others", PoolMember(state="s", taken=True), replace(myself(), pid=1))

    def take(*_: object, **__: object) -> None:
        record = observe(used).record
        taken = PoolMember(state="s", taken=True)
        set_record(used, replace(record, member=taken, creator=myself()))
        used.resume()
        raise error

    filled: list[str] = []
    monkeypatch.setattr(run, "decide", lambda *_: SimpleNamespace(identity=SPEC))
    monkeypatch.setattr(run, "launch", take)
    monkeypatch.setattr(run, "sweep", lambda *_: None)
    monkeypatch.setattr(pool, "refill", lambda _where, name, _progress: filled.append(name))
    with pytest.raises(type(error)):
        run.run(
            Where(connection=connection, facts=facts_of(TCG_HOST)),
            Machine(name="run-1"),
            None,
            command=[],
            variables=[],
            outputs=None,
            keep=False,
            named=False,
            warm=Warm(),
            timeout=None,
            progress=Quiet(),
        )
    assert [name for name, _ in connection.removed] == ["used"]
    assert filled == ["gold"]


@pytest.mark.parametrize("interrupted", ["keep", "reachable"])
def test_create_removes_a_taken_machine_when_interrupted(
    connection: Any, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    golden = define_golden(connection)
    domain = member(connection, "used", PoolMember(state="s", taken=True), myself())

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(choose, "choose", lambda *_: golden)
    monkeypatch.setattr(pool, "take", lambda *_: domain)
    monkeypatch.setattr(
        *((pool, "keep") if interrupted == "keep" else (launch, interrupted)), interrupt
    )
    where = Where(connection=connection, facts=facts_of(TCG_HOST))
    with pytest.raises(KeyboardInterrupt):
        launch._from_golden(where, None, "", Warm(), Quiet(), False, True, True)  # type: ignore[arg-type]
    assert [name for name, _ in connection.removed] == ["used"]


def test_a_machine_that_is_kept_is_an_ordinary_one(connection: Any) -> None:
    domain = member(connection, "used", PoolMember(state="s", taken=True), myself())
    pool.keep(find_domain(connection, "used"))
    record = observe(domain).record
    assert (record.member, record.creator, record.golden) == (None, None, "gold")
