"""``armvm run --on QUEUE`` with a real Slurm: two nodes with a libvirt and a golden each."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.remote.conftest import BOOT_TIMEOUT
from tests.remote.slow.slurm import Cluster, cluster, until
from tests.support import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

#: Prints what it got, and exits with the length of its item.
_STUB = """\
import json, os, sys
item = [one.split("=", 2)[2] for one in sys.argv if one.startswith("--env=ARMVM_ITEM=")]
kept = {name: os.environ.get(name) for name in ("ARMVM_ON", "ARMVM_CONNECT", "SHELL_WORD")}
there = {"argv": sys.argv[1:], "env": kept, "node": os.uname().nodename, "cwd": os.getcwd()}
print(json.dumps(there))
print("trouble", file=sys.stderr)
sys.exit(len(item[0]) if item else 3)
"""
ODD = [
    "two words", "quo'te", 'dou"ble', "do$llar `x` \\n", "-dash", "--", "*", "tab\tx", "ümlaut",
    "cr\rmid", "item=1", "#x", ";", "%j%A", " space ", "&", "~",
]  # fmt: skip


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """A directory whose path is short: a socket's may have 107 bytes."""
    work = Path(tempfile.mkdtemp(prefix="armvm-farm-", dir="/var/tmp"))
    work.chmod(0o711)
    yield work
    shutil.rmtree(work, ignore_errors=True)


@pytest.fixture(scope="module")
def slurm(files: Path) -> Iterator[Cluster]:
    """The controller, without nodes."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a cluster")
    with cluster(files) as found:
        yield found


@pytest.fixture(scope="module")
def first(slurm: Cluster, debian_image: Path) -> str:
    """The first node, with the golden ci."""
    slurm.start_node("n1")
    slurm.armvm_at(
        *("n1", "golden", "create", "ci", "--preset", "minimal", "--mem", "768"),
        *("--network", "user", "--image", debian_image, "--timeout", str(2 * BOOT_TIMEOUT)),
        timeout=2 * BOOT_TIMEOUT + 60,
    ).ok()
    return "n1"


@pytest.fixture(scope="module")
def farm(slurm: Cluster, first: str) -> Cluster:
    """Both nodes, and the queues: farm has both, one has the first, stub runs no armvm."""
    slurm.start_node("n2", like=first)
    stub = slurm.work / "stub"
    stub.write_text(f"#!/usr/bin/python3\n{_STUB}")
    stub.chmod(0o755)
    file = slurm.work / "config/armvm/config.toml"
    file.parent.mkdir(parents=True)
    shared = f'shared = ["{slurm.work}"]'
    file.write_text(
        "[queues]\n"
        f'farm = {{ slurm = "arm", cpus = 2, mem = "768M", {shared} }}\n'
        f'one = {{ slurm = "one", cpus = 2, mem = "768M", options = ["--time=30"], {shared} }}\n'
        f'stub = {{ slurm = "arm", armvm = "{stub}", {shared} }}\n'
    )
    return slurm


@pytest.fixture
def outputs(farm: Cluster) -> Path:
    """A directory that does not exist, on a file system that the nodes share. Slurm reads %j."""
    return farm.work / f"out %j {secrets.token_hex(3)}"


@pytest.fixture(autouse=True)
def nothing_left(farm: Cluster) -> Iterator[None]:
    """Check after each test that no machine and no job is left."""
    yield
    until(lambda: not farm.jobs(), "a job is left")
    assert [farm.left(node) for node in farm.nodes] == [[], []]


def ended(process: Any, timeout: float = 180) -> tuple[int, bytes, bytes]:
    """Return the exit code and the outputs of a process."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def test_streams_and_exit_code(farm: Cluster) -> None:
    done = farm.armvm(
        *("run", "--on", "farm", "--from", "ci", "--env", "ODD=a b'c\"$d", "--"),
        *("sh", "-c", 'cat; printf "%s|" "$ODD" "$@" >&2; exit 7', "sh", *ODD),
        stdin="in \0put\n",
        timeout=300,
    )
    assert (done.code, done.out) == (7, "in \0put\n")
    odd = "|".join(["a b'c\"$d", *ODD, ""])
    assert odd.replace("\r", "\n") in done.err  # read as text
    many = random.Random(0).randbytes(1 << 20)
    process = farm.spawn("run", "--on", "one", "--from", "ci", "--", "cat", stdin=-1)
    out, err = process.communicate(many, timeout=300)
    assert (process.returncode, out == many) == (0, True), err


def test_a_terminal(farm: Cluster) -> None:
    words = farm.at_client("armvm", "run", "--on", "one", "--from", "ci", "--quiet")
    shell = pexpect.spawn(words[0], words[1:], env=environment(**farm.env), timeout=240)
    shell.sendline("stty size; tty; exit 5")
    shell.expect("/dev/pts/")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_node(farm: Cluster, number: int) -> None:
    process = farm.spawn(
        "run", "--on", "one", "--from", "ci", "--", "sh", "-c", "echo up; sleep 500"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    code, _, err = ended(process)
    assert code == 128 + number, err
    assert b"Killed" not in err
    assert farm.left("n1") == []


def test_a_signal_while_the_job_waits(farm: Cluster) -> None:
    farm.run("scontrol", "update", "PartitionName=one", "State=DOWN")
    try:
        process = farm.spawn("run", "--on", "one", "--from", "ci", "--", "true")
        until(farm.jobs, "no job")
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
        assert code != 0, err
        until(lambda: not farm.jobs(), "the job is left")
    finally:
        farm.run("scontrol", "update", "PartitionName=one", "State=UP")


def test_the_next_run_removes_what_a_killed_one_left(farm: Cluster) -> None:
    process = farm.spawn("run", "--on", "one", "--from", "ci", "--", "sh", "-c", "echo; sleep 500")
    assert process.stdout is not None
    process.stdout.readline()
    farm.kill_jobs("n1")
    code, _, err = ended(process)
    assert code == 128 + signal.SIGKILL, err
    left = farm.left("n1")
    assert left, "nothing to remove"
    done = farm.armvm("run", "--on", "one", "--from", "ci", "--", "true", timeout=300).ok()
    assert f"removing {left[0]}, which an interrupted armvm left behind" in done.err


def test_every_item_arrives(farm: Cluster, outputs: Path) -> None:
    file = farm.work / "items"
    items = [*ODD, "a", "bb", "ccc"]
    file.write_bytes("".join(f"{one}\n" for one in items).encode())
    done = farm.armvm(
        *("run", "--on", "stub", "--each", file, "--outputs", outputs, "--json", "--no-motd"),
        *("--user", "me", "--mem", "300", "--cpus", "1", "--", "sh", "-c", '"$ARMVM_ITEM"', ""),
        env={"ARMVM_ON": "lab9", "ARMVM_CONNECT": "bad:///x", "SHELL_WORD": "a 'b"},
    )
    tasks = done.json
    assert len(items) == 20
    assert [one["item"] for one in tasks] == items
    assert [one["exit_code"] for one in tasks] == list(map(len, items))
    assert done.code == max(map(len, items))
    for one in tasks:
        said = json.loads(Path(one["stdout"]).read_text())
        assert said["argv"] == [
            *("run", "--user=me", "--no-motd", "--cpus=1", "--mem=300"),
            *(f"--env=ARMVM_ITEM={one['item']}", "--", "sh", "-c", '"$ARMVM_ITEM"', ""),
        ]
        assert said["env"] == {"ARMVM_ON": None, "ARMVM_CONNECT": None, "SHELL_WORD": "a 'b"}
        assert said["cwd"] == "/"
        assert Path(one["stderr"]).read_text() == "trouble\n"


def test_many_in_guests(farm: Cluster, outputs: Path) -> None:
    done = farm.armvm(
        *("run", "--on", "farm", "--from", "ci", "--count", "6", "--outputs", outputs),
        *("--json", "--", "sh", "-c", 'uname -m; cat /etc/hostname; exit "$ARMVM_ITEM"'),
        timeout=900,
    )
    assert (done.code, [one["exit_code"] for one in done.json]) == (6, [1, 2, 3, 4, 5, 6])
    said = [Path(one["stdout"]).read_text().split() for one in done.json]
    assert {one[0] for one in said} == {"aarch64"}
    assert len({one[1] for one in said}) == 6


def test_ctrl_c_cancels_all_tasks(farm: Cluster, outputs: Path) -> None:
    process = farm.spawn(
        *("run", "--on", "farm", "--from", "ci", "--count", "3", "--outputs", outputs),
        *("--", "sh", "-c", "echo up; sleep 500"),
    )
    until(lambda: any(one.stat().st_size for one in outputs.glob("*.out")), "none is up", 240)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 128 + signal.SIGINT, err
    assert not farm.jobs()
    assert [farm.left(node) for node in farm.nodes] == [[], []]


def test_a_lost_task_is_reported(farm: Cluster, outputs: Path) -> None:
    process = farm.spawn(
        *("run", "--on", "one", "--from", "ci", "--count", "2", "--outputs", outputs),
        *("--", "sh", "-c", "[ $ARMVM_ITEM = 2 ] || { echo up; sleep 500; }"),
    )
    until(lambda: any(one.stat().st_size for one in outputs.glob("1.out")), "not up", 240)
    farm.kill_jobs("n1")
    code, out, err = ended(process)
    assert code == 12, err
    assert out.split()[3:] == [b"1", b"-", b"1", b"2", b"0", b"2"]
    assert b"1 of 2 tasks ended without an exit code: 1" in err
