"""Pools: ready clones of a golden, taken by `run` and `create`, also when processes are killed."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.base.poll import until
from armvm.base.progress import Quiet
from armvm.host import facts
from armvm.host.connection import connect
from armvm.host.domain.golden_domain import change_mark, find_golden
from armvm.provision.golden import pool
from armvm.provision.machine.create import Where
from tests.boot.conftest import leftovers
from tests.boot.test_warm import CLONE_TIMEOUT, assert_all_differ, identity
from tests.libvirt.world import virsh
from tests.support import Result, armvm, spawn

SYSTEM = "qemu:///system"
#: Seconds to fill a pool on a busy host.
FILL = 300


def state(golden: str) -> dict[str, Any]:
    """Return what `armvm pool list` says of a golden's pool."""
    found = {one["golden"]: one for one in armvm("pool", "list", "--json").ok().json}
    return dict(found.get(golden, {"size": 0, "ready": 0, "starting": 0, "machines": []}))


def wait_for(check: Callable[[], bool]) -> None:
    assert until(check, timeout=FILL, interval=0.5)


def settled(golden: str, ready: int) -> Callable[[], bool]:
    def look() -> bool:
        now = state(golden)
        return (now["ready"], now["starting"]) == (ready, 0)

    return look


def members(golden: str) -> set[str]:
    """Return the domains that a golden's pool ever gave their names."""
    names = virsh("list", "--all", "--name").split()
    return {name for name in names if re.fullmatch(rf"{re.escape(golden)}-[0-9a-f]{{6}}", name)}


@pytest.fixture
def ready(golden: str) -> Iterator[str]:
    """The golden, with a pool of one; afterwards nothing of it is left."""
    armvm("pool", "set", golden, "--size", "1", timeout=FILL).ok()
    yield golden
    armvm("pool", "set", golden, "--size", "0", timeout=FILL).ok()
    wait_for(lambda: state(golden)["machines"] == [] and state(golden)["starting"] == 0)
    assert members(golden) == set()


class Said(Quiet):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def run(golden: str, *command: str) -> Result:
    return armvm("run", "--from", golden, "--", *command, timeout=CLONE_TIMEOUT)


def cpu_seconds(name: str) -> float:
    """Return the host's CPU time that a machine has used."""
    (found,) = re.findall(r"cpu\.time=(\d+)", virsh("domstats", "--cpu-total", name))
    return int(found) / 1e9


@pytest.mark.slow
def test_a_ready_machine_waits_without_a_trace_elsewhere(ready: str) -> None:
    now = state(ready)
    assert (now["size"], now["ready"], now["why_not"]) == (1, 1, None)
    (name,) = now["machines"]
    assert 50 < now["memory_mib"] < 1024
    assert virsh("domstate", name).strip() == "paused"
    first = cpu_seconds(name)
    assert name not in [one["name"] for one in armvm("list", "--json").ok().json]
    assert "belongs to the pool" in armvm("ssh", name, "--", "true").failed(5).err
    assert "belongs to the pool" in armvm("resume", name).failed(5).err
    assert cpu_seconds(name) - first < 0.1, "its CPUs stand still"


def test_a_command_takes_one_and_another_one_is_made(ready: str) -> None:
    (before,) = state(ready)["machines"]
    time.sleep(5)  # its clock stands still
    line = "hostname; date +%s.%N; cat /proc/sys/kernel/random/uuid"
    begun = time.time()
    done = run(ready, "sh", "-c", line).ok()
    assert f"taken from the pool of golden {ready}" in done.err
    name, clock, first = done.out.split()
    assert name == before
    assert begun - 1 < float(clock) < time.time() + 1
    assert leftovers(before) == []
    wait_for(settled(ready, 1))
    (after,) = state(ready)["machines"]
    assert after != before
    assert run(ready, "cat", "/proc/sys/kernel/random/uuid").ok().out.strip() != first
    wait_for(settled(ready, 1))


@pytest.mark.slow
def test_a_machine_that_is_taken_is_like_any_other(ready: str, key: Path) -> None:
    taken = []
    words = ("create", "--from", ready, "--ssh-key", key, "--json")
    try:
        for _ in range(2):
            (waiting,) = state(ready)["machines"]
            done = armvm(*words, timeout=CLONE_TIMEOUT).ok()
            taken.append(done.json["name"])
            assert "taken from the pool" in done.err
            assert taken[-1] == waiting
            wait_for(settled(ready, 1))
        shown = armvm("show", taken[0], "--json").ok().json
        assert (shown["state"], shown["golden"]) == ("running", ready)
        assert_all_differ([identity(name) for name in taken])
        # The key was not known when the machine was made.
        private = key.with_suffix("")
        port = shown["ssh"]["port"]
        login = ["ssh", "-F", "none", "-i", private, "-o", "StrictHostKeyChecking=no", "-p", port]
        login += ["-o", "UserKnownHostsFile=/dev/null", "debian@127.0.0.1", "hostname"]
        told = subprocess.run([*map(str, login)], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == taken[0]
    finally:
        armvm("delete", "--yes", *taken)
    assert leftovers(taken[0]) == []


@pytest.mark.slow
def test_other_settings_and_names_do_not_take_one(ready: str) -> None:
    (waiting,) = state(ready)["machines"]
    own = f"{ready}-own"
    done = armvm("run", "--from", ready, "--name", own, "--", "hostname", timeout=CLONE_TIMEOUT)
    assert done.ok().out.strip() == own
    words = ("create", "--from", ready, "--json", "--password")
    made = armvm(*words, stdin="secret\n", timeout=CLONE_TIMEOUT).ok()
    armvm("delete", "--yes", made.json["name"]).ok()
    for one in (done, made):
        assert "created from golden" in one.err
    assert state(ready)["machines"] == [waiting]


@pytest.mark.slow
def test_two_at_once_get_two_machines(ready: str) -> None:
    with ThreadPoolExecutor() as threads:
        both = list(threads.map(lambda _: run(ready, "hostname").ok(), range(2)))
    assert both[0].out != both[1].out
    assert sum("taken from the pool" in one.err for one in both) == 1
    wait_for(settled(ready, 1))


def test_what_killed_processes_leave_is_removed(ready: str) -> None:
    (waiting,) = state(ready)["machines"]
    with spawn("run", "--from", ready, "--", "sleep", "600") as claimer:
        wait_for(lambda: virsh("domstate", waiting).strip() == "running")
        claimer.send_signal(signal.SIGKILL)
    with spawn("pool", "set", ready, "--size", "2") as filler:
        wait_for(lambda: state(ready)["starting"] == 1)
        filler.send_signal(signal.SIGKILL)
    assert waiting not in state(ready)["machines"]
    armvm("pool", "fill", ready, timeout=FILL).ok()
    now = state(ready)
    assert (now["ready"], now["starting"]) == (2, 0)
    assert members(ready) == set(now["machines"])
    assert leftovers(waiting) == []


def test_a_pool_whose_golden_does_not_fit_empties_itself(ready: str) -> None:
    connection = connect(SYSTEM)
    where = Where(connection=connection, facts=facts.observe(connection))
    golden = find_golden(connection, ready)
    try:
        altered = {**golden.mark.ground, "QEMU": "1.0 of another time"}
        change_mark(connection, golden, replace(golden.mark, ground=altered))
        said = Said()
        pool.empty_unusable(where, said)
        assert len(said.lines) == 1
        assert f"emptied the pool of golden {ready} (1): QEMU" in said.lines[0]
        assert members(ready) == set()
        refused = armvm("pool", "fill", ready).failed(5)
        assert "1.0 of another time where it was made" in refused.err
        assert state(ready)["why_not"] is not None
    finally:
        change_mark(connection, golden, golden.mark)
        connection.close()


def test_bad_input(golden: str) -> None:
    assert "not found" in armvm("pool", "set", "armvm-no-such", "--size", "1").failed(4).err
    armvm("pool", "set", golden, "--size", "-1").failed(2)
    armvm("pool", "set", golden, "--size", "many").failed(2)
    assert armvm("pool", "fill", golden).ok().out == "", "it has no pool"
