"""Answers of the guest agent that have another form: the guest may send anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from armvm.base.errors import CommandFailed, DomainError
from armvm.base.progress import Quiet
from armvm.host.agent import agent, agent_file
from armvm.host.connection import connect
from armvm.host.domain.handle import Handle
from armvm.provision.access import exec_
from armvm.provision.access.exec_streams import Run
from armvm.provision.manage import mount
from tests.unit.host_tools import INSTANCE


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


@pytest.mark.parametrize(
    "answer", ["9" * 5000 + "\n0", "99999999999\n0", "\u00b2\n0", "-1\n0", "1000"]
)
def test_a_users_ids_are_numbers(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(agent, "output", lambda *_, **__: answer)
    with pytest.raises(CommandFailed, match="not found"):
        mount._ids(machine())


def test_output_that_is_kept_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(*_: object, stdout: Any, stderr: Any, **__: object) -> int:
        stdout(b"a" * 60)
        stderr(b"b" * more)
        return 3

    monkeypatch.setattr(exec_, "execute", execute)
    monkeypatch.setattr(exec_, "MAX_KEPT", 100)

    def kept() -> exec_.ExecResult:
        return exec_.execute_and_keep(
            machine(), ["x"], user=None, timeout=None, stdin=None, progress=Quiet()
        )

    more = 40
    result = kept()
    assert (result.exit_code, result.stdout, result.stderr) == (3, "a" * 60, "b" * 40)
    more = 41
    with pytest.raises(CommandFailed, match="longer than") as caught:
        kept()
    assert "--json" in str(caught.value.hint)


def machine() -> Handle:
    connection = connect("test:///default")
    return Handle(connection=connection, domain=connection.lookupByName("test"), instance=INSTANCE)
