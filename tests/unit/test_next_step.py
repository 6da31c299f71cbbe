"""What can be done after a wait that failed: only who waited knows whether the machine stays."""

from __future__ import annotations

import pytest

from armvm.base.errors import ArmvmError, CommandFailed, DomainError, NotReady
from armvm.provision.monitor.wait import next_step


def hint(error: ArmvmError, *, stays: bool) -> str:
    with pytest.raises(type(error)) as caught, next_step("m", stays=stays):
        raise error
    return str(caught.value.hint)


def test_a_machine_that_stays_can_be_looked_at() -> None:
    told = hint(NotReady("late", hint="ssh does not answer"), stays=True)
    assert told.startswith("ssh does not answer. m is still running; ")
    for command in ("armvm wait m", "armvm console m", "armvm delete m"):
        assert command in told
    assert hint(DomainError("off", hint="armvm start m"), stays=True) == "armvm start m"


@pytest.mark.parametrize("kind", [NotReady, DomainError, CommandFailed])
def test_of_a_removed_machine_no_command_is_named(kind: type[ArmvmError]) -> None:
    told = hint(kind("late", hint="armvm console m shows it"), stays=False)
    assert told.startswith("m was removed")
    assert "still running" not in told
    assert "console" not in told
