"""Whether a maker still lives: real processes, alive, dead, and one with a reused number."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from armvm.host.domain.metadata import Creator
from armvm.provision.machine.unfinished import is_dead, myself

SCRIPT = (
    "from armvm.provision.machine.unfinished import myself\n"
    "m = myself(); print(m.host, m.pid, m.started, sep='\\t', flush=True); input()"
)


def start() -> tuple[subprocess.Popen[str], Creator]:
    """Start another maker, and return it with what it says of itself."""
    maker = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    host, pid, started = maker.stdout.readline().strip().split("\t")
    return maker, Creator(host=host, pid=int(pid), started=int(started))


def test_this_process_lives() -> None:
    creator = myself()
    assert creator.pid == os.getpid()
    assert creator.started > 0
    assert myself() == creator
    assert not is_dead(creator)


def test_another_process_lives_until_it_is_killed() -> None:
    maker, creator = start()
    with maker:
        assert creator.pid == maker.pid
        assert not is_dead(creator)
        maker.kill()
        # Not waited for, it is a zombie: it does nothing more.
        os.waitid(os.P_PID, maker.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(creator)
    assert is_dead(creator)


def test_a_reused_number_is_another_process() -> None:
    assert is_dead(replace(myself(), started=myself().started - 1))


def test_a_maker_on_another_host_may_be_alive() -> None:
    assert not is_dead(Creator(host="another-boot/pid:[1]", pid=1, started=0))


@pytest.mark.parametrize("pid", [-1, 0, 1 << 40])
def test_an_impossible_number_is_no_process(pid: int) -> None:
    assert is_dead(replace(myself(), pid=pid))
