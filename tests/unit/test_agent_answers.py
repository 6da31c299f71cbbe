"""Answers of the guest agent that have another form: the guest may send anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from armvm.base.errors import DomainError
from armvm.host.agent import agent, agent_file
from armvm.host.connection import connect
from armvm.provision.access.exec_streams import Run


@pytest.mark.parametrize(
    "answer",
    [None, [], 5, {}, {"pid": float("inf"), "exited": True, "exitcode": "x", "buf-b64": 5}],
    ids=str,
)
@pytest.mark.parametrize(
    "call",
    [
        lambda domain: agent.start_process(domain, ["true"]),
        lambda domain: agent.ended(domain, 1),
        lambda domain: agent_file.GuestFile(domain=domain, path="/x", handle=1).read(),
    ],
    ids=["start", "ended", "read"],
)
def test_the_agent_is_named(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[Any], object], answer: object
) -> None:
    for module in (agent, agent_file):
        monkeypatch.setattr(module, "ask", lambda *_, **__: answer)
    domain = connect("test:///default").lookupByName("test")
    with pytest.raises(DomainError, match="in test: the guest agent sent an invalid answer"):
        call(domain)


@pytest.mark.parametrize("answer", [None, [], "x", {}, float("inf")], ids=str)
def test_a_files_handle_is_a_number(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    monkeypatch.setattr(agent_file, "ask", lambda *_, **__: answer)
    domain = connect("test:///default").lookupByName("test")
    with pytest.raises(DomainError, match="invalid answer"):
        agent_file.open_file(domain, "/x", "r")


@pytest.mark.parametrize(
    "line", ["start x", "exit", "exit -1", "exit 99999999999", "start \u00b2", "x" * 5000]
)
def test_a_script_reports_numbers(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    domain = connect("test:///default").lookupByName("test")
    file = agent_file.GuestFile(domain=domain, path="/x", handle=1)
    end = "" if len(line) > 4096 else "\n"
    monkeypatch.setattr(agent_file.GuestFile, "read", lambda _: f"{line}{end}".encode())
    run = Run(domain=domain, directory="/x", status=file, control=file, streams=())
    with pytest.raises(DomainError, match="invalid answer"):
        run.hear()
