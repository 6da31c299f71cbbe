"""The host reboots, loses its power, and libvirt's daemon restarts, with guests in all states.

The tests of a place are chapters, in their order. One golden serves them all; what reboots is its
clones, from their own disks.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import cases
from tests.hosts.other import CHECKOUT, Place
from tests.hosts.slow.guests import BOOT, MACHINE, called, defined, golden_of, guest, need, remove

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    cases(*((suite, role) for suite in ("trixie", "sid") for role in ("root", "sudo"))),
]
#: A port of the host that leads to the guest's ssh.
PORT = "18022"


MACHINES = ("auto", "first", "late", "made", "next")


@pytest.fixture(scope="module")
def golden(place: Place, debian_image: Path) -> Iterator[str]:
    """The golden of the place, and clones of it by their keys."""
    yield golden_of(place, debian_image)
    remove(place, *MACHINES)
    place.armvm("golden", "delete", "--yes", called(place, "gold2"))


def clone(place: Place, golden: str, key: str) -> str:
    """Make a clone, and return its name."""
    name = called(place, key)
    place.armvm("create", "--from", golden, "--name", name, timeout=300).ok()
    return name


def started(place: Place, name: str) -> None:
    """Start a machine and wait until it can be logged in to."""
    place.armvm("start", name, "--wait", "--timeout", str(BOOT), timeout=BOOT + 60).ok()


def state(place: Place, name: str) -> str:
    """Return a machine's state as `list` tells it."""
    rows = place.armvm("list", "--json").ok().json
    return str(next(one["state"] for one in rows if one["name"] == name))


def identity(place: Place, name: str) -> dict[str, Any]:
    """Return what must stay a machine's own in each of its boots."""
    told = place.armvm("show", name, "--identity", "--json").ok().json
    kept = ("hostname", "hostname_file", "machine_id", "instance_id", "host_key")
    return {key: told[key] for key in kept}


def greeted(place: Place) -> bool:
    """Tell whether the forwarded port leads to an ssh server."""
    line = f"exec 3<>/dev/tcp/127.0.0.1/{PORT}; head -n 1 <&3"
    return place.run("bash", "-c", line, timeout=60).out.startswith("SSH-2.0")


def daemon_restarts(place: Place) -> None:
    """Restart libvirt's daemon: the system's, or the user's own."""
    if place.user.uri == "qemu:///system":
        place.host.run("systemctl", "restart", "libvirtd").ok()
        return
    name = place.user.name
    # There may be none: it ends by itself when nobody needs it.
    place.host.shell(f"pkill -u {name} -x libvirtd; sleep 1").ok()


@pytest.mark.feature("libvirt restarts while a machine runs")
def test_a_running_clone_outlives_its_daemon(place: Place, golden: str) -> None:
    name = clone(place, golden, "first")
    before = identity(place, name)
    daemon_restarts(place)
    assert state(place, name) == "running"
    assert guest(place, name, "hostname") == name
    assert place.armvm("exec", name, "--", "id", "-un").ok().out == "root\n"
    assert identity(place, name) == before
    line = f"echo 'echo $((41 + 1))' | {CHECKOUT}/.venv/bin/armvm console {name}"
    assert "42" in place.run("sh", "-c", line).ok().out
    place.armvm("golden", "verify", golden).ok()


@pytest.mark.feature("libvirt restarts while a clone is made")
def test_a_clone_that_is_being_made_is_whole_or_gone(place: Place, golden: str) -> None:
    name = called(place, "made")
    outcomes = []
    for delay in (0.8, 1.6, 2.4):
        words = (f"{CHECKOUT}/.venv/bin/armvm", "create", "--from", golden, "--name", name)
        with subprocess.Popen(
            place.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as making:
            time.sleep(delay)
            daemon_restarts(place)
            said, _ = making.communicate(timeout=BOOT + 300)
        assert "Traceback" not in said
        outcomes.append((making.returncode, said))
        if making.returncode == 0:
            assert guest(place, name, "hostname") == name
            place.armvm("delete", "--yes", name).ok()
    assert clone(place, golden, "made") == name, outcomes
    assert guest(place, name, "hostname") == name
    place.armvm("delete", "--yes", name).ok()


@pytest.mark.feature("the host reboots: `autostart`, forwards, the network")
def test_a_machine_with_autostart_comes_back(place: Place, golden: str) -> None:
    name = clone(place, golden, "auto")
    before = identity(place, name)
    place.armvm("autostart", name).ok()
    place.armvm("forward", "add", name, f"{PORT}:22").ok()
    place.host.do("reboot", timeout=1200).ok()
    # A session's autostart is its daemon's, which begins with the first command.
    place.armvm("wait", name, "--timeout", str(BOOT), timeout=BOOT + 60).ok()
    assert guest(place, name, "hostname") == name
    assert greeted(place)
    assert identity(place, name) == before
    if place.user.uri == "qemu:///system":
        assert place.virsh("net-info", "armvm").split("Active:")[1].split()[0] == "yes"
    place.armvm("autostart", name, "--off").ok()
    place.armvm("stop", "--force", name).ok()


@pytest.mark.feature("the host reboots: a clone in its first run, goldens")
def test_a_clone_in_its_first_run_boots_as_itself(place: Place, golden: str) -> None:
    name = need(place, "first")
    # It ran when the host was shut down. Since 11.2, a session's libvirt saves such machines, and
    # restores them when it starts again (auto_shutdown_try_save in qemu.conf).
    if place.user.uri == "qemu:///session":
        assert state(place, name) == "running"
        assert place.armvm("exec", name, "--", "uname", "-n").ok().out == f"{name}\n"
        place.armvm("stop", "--force", name).ok()
    assert state(place, name) == "shut off"
    place.armvm("golden", "verify", golden).ok()
    started(place, name)
    assert guest(place, name, "hostname") == name
    told = identity(place, name)
    shown = place.armvm("show", name, "--json").ok().json
    assert told["hostname"] == told["hostname_file"] == name
    assert told["machine_id"] == shown["uuid"].replace("-", "")
    assert told["instance_id"] == shown["instance_id"]
    place.armvm("stop", "--force", name).ok()


@pytest.mark.feature("the power fails: a clone in its first run, goldens")
def test_a_power_cut(place: Place, golden: str) -> None:
    name = clone(place, golden, "late")
    before = identity(place, name)
    guest(place, name, "echo kept >~/mark; sync")
    place.host.do("stop").ok()
    place.host.do("boot", timeout=900).ok()
    assert state(place, name) == "shut off"
    place.armvm("golden", "verify", golden).ok()
    started(place, name)
    assert identity(place, name) == before
    assert guest(place, name, "cat ~/mark") == "kept"
    place.armvm("stop", "--force", name).ok()
    assert guest(place, clone(place, golden, "next"), "uname -m") == "aarch64"


@pytest.mark.feature("libvirt restarts while a golden is saved")
def test_a_golden_that_is_being_saved_is_whole_or_gone(place: Place, golden: str) -> None:
    remove(place, *MACHINES)
    name = called(place, "gold2")
    words = (f"{CHECKOUT}/.venv/bin/armvm", "golden", "create", name, *MACHINE)
    said = []
    with subprocess.Popen(
        place.command(*words, "--network", "user", "--timeout", str(BOOT)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as making:  # fmt: skip
        assert making.stdout is not None
        for line in making.stdout:
            said.append(line)
            if "saving its memory" in line or ("settling" in line and "done" not in line):
                daemon_restarts(place)
                break
        said += making.stdout.readlines()
    assert "Traceback" not in "".join(said)
    if making.returncode == 0:
        place.armvm("golden", "verify", name).ok()
    else:
        # What is left, if anything, goes with one command.
        place.armvm("delete", "--yes", name)
        assert not defined(place, name), said
    place.armvm("golden", "verify", golden).ok()
