"""Answers of a guest's agent that are not in its protocol: no real agent sends them."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from armvm.base.errors import DomainError, MissingCapability
from armvm.host.agent import agent
from armvm.host.domain.disks import Disk
from armvm.host.domain.handle import Handle
from armvm.host.network.addresses import all_addresses
from armvm.host.network.networks import addresses
from armvm.provision.manage import disk as disks
from tests.unit.host_tools import INSTANCE

CONNECTED = "<channel><target name='org.qemu.guest_agent.0' state='connected'/></channel>"


class Guest:
    """A domain whose agent sends the *addresses* of one card."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    def name(self) -> str:
        return "guest"

    def XMLDesc(self, _flags: int) -> str:
        return CONNECTED

    def interfaceAddresses(self, source: int, _flags: int) -> dict[str, Any]:
        if source != libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT:
            return {}
        entries = [{"addr": one, "prefix": 24, "type": int(":" in one)} for one in self._addresses]
        return {"eth0": {"hwaddr": "52:54:00:00:00:01", "addrs": entries}}


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Any:
    """Return a domain whose agent always sends *answer*."""

    def ask(*_arguments: Any, **_options: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(agent, "ask", ask)
    return Guest()


def test_what_is_not_an_address_is_skipped() -> None:
    guest: Any = Guest("", "x\x1b[2J", "1.2.3.4.5", "127.0.0.1", "10.0.0.7", "2001:db8::1%\x1b[2J")
    assert addresses(guest) == ["10.0.0.7"]
    assert [one.address for one in all_addresses(guest)] == ["10.0.0.7", "2001:db8::1"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        {"pid": None},
        {"pid": 1, "exited": 1, "exitcode": 0, "out-data": "a"},
        {"pid": 1, "exited": 1, "out-data": 7},
        {"pid": float("inf")},
    ],
    ids=str,
)
def test_invalid_answers_are_an_error(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    with pytest.raises(DomainError, match="the guest agent sent an invalid answer") as caught:
        agent.output(answering(monkeypatch, answer), ["true"])
    assert caught.value.hint


@pytest.mark.parametrize(
    "answer", [{}, {"exited": True, "exitcode": "x"}, {"exited": 1, "signal": []}], ids=str
)
def test_an_invalid_end_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    with pytest.raises(DomainError, match="the guest agent sent an invalid answer"):
        agent.ended(answering(monkeypatch, answer), 1)


def test_a_guest_that_forbids_commands_keeps_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = answering(monkeypatch, MissingCapability("guest-exec is forbidden"))
    disk = Disk(name="data", target="vdc", file="/x", format="raw", read_only=False)
    machine: Any = Handle(connection=domain, domain=domain, instance=INSTANCE)
    assert disks._mounted(machine, disk) is None
