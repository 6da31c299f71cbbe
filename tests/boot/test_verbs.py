"""A machine's week, on real guests: one clone lives through all verbs, its copy boots as itself.

The tests are chapters, in order; the only boot among them, the copy's, is slow.
"""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.boot.conftest import BOOT_TIMEOUT, leftovers
from tests.support import armvm, fresh_name, spawn


@pytest.fixture(scope="module")
def names(golden: str) -> Iterator[tuple[str, str, str]]:
    """A running clone, the name it will have later, and its copy's; all go in the end."""
    first, later, copy = (fresh_name(f"armvm-clone-{what}") for what in ("a", "b", "c"))
    try:
        armvm("create", "--from", golden, "--name", first, timeout=300).ok()
        yield first, later, copy
    finally:
        for name in (first, later, copy):
            armvm("delete", "--yes", name)
            assert leftovers(name) == []


def ssh(name: str, command: str) -> str:
    return armvm("ssh", name, "--", command).ok().out.strip()


def behind(name: str) -> float:
    """Return how many seconds a guest's clock is behind; a login takes some of them."""
    before = time.time()
    told = float(ssh(name, "date +%s.%N"))
    return 0.0 if before <= told <= time.time() else before - told


def test_a_resumed_guest_knows_the_time(names: tuple[str, str, str]) -> None:
    name = names[0]
    armvm("suspend", name).ok()
    time.sleep(8)
    resumed = armvm("resume", name).ok()
    assert resumed.err == ""
    assert abs(behind(name)) < 3


def test_the_agent_tells_the_address(names: tuple[str, str, str]) -> None:
    found = armvm("ip", names[0], "--json").ok().json
    assert "10.0.2.15" in {one["address"] for one in found["addresses"]}
    assert {one["source"] for one in found["addresses"]} == {"agent"}


def test_a_forward_leads_into_the_guest(names: tuple[str, str, str]) -> None:
    name = names[0]
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    armvm("forward", "add", name, f"{port}:8000").ok()
    ssh(name, "echo hello >/tmp/greeting; nohup python3 -m http.server -d /tmp 8000 &>/dev/null &")
    end = time.monotonic() + 60
    while True:
        try:
            url = f"http://127.0.0.1:{port}/greeting"
            assert urllib.request.urlopen(url, timeout=30).read() == b"hello\n"
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.5)


def test_the_root_file_system_grows_while_the_guest_runs(names: tuple[str, str, str]) -> None:
    name = names[0]
    sizes = "df --output=size -BM / | tail -1; lsblk -bdno SIZE /dev/vda"
    before = ssh(name, sizes).split()
    [done] = armvm("resize", name, "--disk", "12G", "--json", timeout=300).ok().json
    assert done["note"].startswith("the root file system grew from"), done
    after = ssh(name, sizes).split()
    assert int(after[0].rstrip("M")) > int(before[0].rstrip("M")) + 1500
    assert int(after[1]) == 12 << 30
    [again] = armvm("resize", name, "--disk", "12G", "--json", timeout=300).ok().json
    assert "grew from" in again["note"]  # nothing was left to do, and that is no failure
    [memory] = armvm("resize", name, "--mem", "512", "--json").ok().json
    assert memory["in_effect"] is False
    assert "golden" in memory["note"]
    armvm("resize", name, "--mem", "1024", "--cpus", "3").ok()


def test_a_snapshot_is_taken_of_a_guest_that_writes(names: tuple[str, str, str]) -> None:
    name, later, _ = names
    ssh(name, "echo kept >~/mark; (while :; do date >>~/noise; done) &>/dev/null &")
    made = armvm("snapshot", "create", name, "--json", timeout=300).ok().json
    assert made["state"] == "frozen"
    noise = ssh(name, "wc -c <~/noise")
    assert int(ssh(name, "sync; wc -c <~/noise")) > int(noise), "it goes on writing"
    ssh(name, "echo lost >~/mark; sync")
    armvm("stop", "--force", name).ok()
    armvm("snapshot", "revert", name, made["name"], "--yes").ok()
    armvm("rename", name, later).ok()
    assert leftovers(name) == []


def test_a_copy_has_an_identity_of_its_own(names: tuple[str, str, str]) -> None:
    _, later, copy = names
    armvm("clone", later, copy).ok()
    made, original = (armvm("show", one, "--json").ok().json for one in (copy, later))
    for key in ("uuid", "mac", "host_key", "instance_id"):
        assert made[key] != original[key], key


@pytest.mark.slow
def test_the_copy_boots_as_itself(names: tuple[str, str, str]) -> None:
    _, later, copy = names
    made, original = (armvm("show", one, "--json").ok().json for one in (copy, later))
    armvm("start", copy, "--wait", "--timeout", str(BOOT_TIMEOUT), timeout=BOOT_TIMEOUT + 60).ok()
    told = ssh(
        copy,
        "hostname; cat /etc/machine-id /var/lib/cloud/data/instance-id ~/mark; nproc; "
        "systemctl is-system-running || true; ls /var/log/journal",
    ).split()
    machine_id = made["uuid"].replace("-", "")
    assert told[:5] == [copy, machine_id, made["instance_id"], "kept", "3"]
    assert made["host_key"] != original["host_key"]
    assert told[5] in ("running", "starting"), told
    assert machine_id in told[6:]
    assert original["uuid"].replace("-", "") not in told[6:], "its journal is the copy's now"


@pytest.mark.slow
def test_a_guest_that_is_asked_restarts(names: tuple[str, str, str]) -> None:
    """The reset is QEMU's to tell; the boot after it need not be waited for."""
    copy = names[2]
    following = spawn("events", copy, "--count", "1", "--timeout", "600")
    time.sleep(1)
    armvm("restart", copy, "--no-wait", timeout=700).ok()
    assert f"{copy}  rebooted" in following.communicate(timeout=60)[0]
    assert armvm("list").out.count(copy) == 1
