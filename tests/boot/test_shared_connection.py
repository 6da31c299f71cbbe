"""Commands that share an ssh connection, and all that may end it. One clone serves most.

The tests are in the order of a story: each begins with the connection that the last one left.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from armvm.base.paths import runtime_dir
from tests.boot.conftest import BOOT_TIMEOUT, reboot
from tests.libvirt.world import virsh
from tests.support import ARMVM, armvm, environment, fresh_name

pytestmark = pytest.mark.slow
CLONE_TIMEOUT = 180


@pytest.fixture(scope="module")
def machine(golden: str) -> Iterator[str]:
    """A clone with user networking."""
    name = fresh_name("armvm-share")
    armvm("create", "--from", golden, "--name", name, timeout=CLONE_TIMEOUT).ok()
    yield name
    armvm("delete", "--yes", name)
    assert sockets(name) == []


def connection(name: str, *options: str) -> str:
    """Return the guest's name for the connection that a command uses: it has the client's port."""
    return armvm("ssh", name, *options, "--", "echo $SSH_CONNECTION").ok().out


def boot(name: str) -> str:
    """Return the boot that a command runs in; empty if ssh fails."""
    return armvm("ssh", name, "--", "cat /proc/sys/kernel/random/boot_id").out


def another_boot(name: str, before: str) -> None:
    """Wait until commands run in another boot; in between, none runs in the old one."""
    end = time.monotonic() + BOOT_TIMEOUT
    while (now := boot(name)) == "":
        assert time.monotonic() < end
        time.sleep(3)
    assert now != before


def sockets(name: str) -> list[Path]:
    uuid = virsh("domuuid", name).strip() if name in virsh("list", "--all", "--name") else name
    prefix = uuid.replace("-", "")[:16]
    there = (runtime_dir() / "armvm").glob(f"{prefix}-*")
    return [path for path in there if path.suffix != ".lock"]


def test_the_first_command_has_the_connection_that_create_opened(machine: str) -> None:
    assert len(sockets(machine)) == 1
    assert connection(machine) == connection(machine)
    assert connection(machine) != connection(machine, "--no-share")


def test_a_command_holds_no_pipe_of_its_caller(machine: str) -> None:
    """As `armvm ssh … 2>&1 | cat`, also for the one that opens the connection."""
    for path in sockets(machine):
        subprocess.run(["ssh", "-S", path, "-O", "exit", "x"], capture_output=True, check=True)
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(ARMVM)} ssh {machine} -- echo here 2>&1 | cat"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=True,
    )
    assert done.stdout == "here\n"
    assert len(sockets(machine)) == 1


def test_a_copy_uses_it(machine: str, tmp_path: Path) -> None:
    before = connection(machine)
    (tmp_path / "file").write_text("text\n")
    armvm("cp", tmp_path / "file", f"{machine}:there").ok()
    armvm("cp", f"{machine}:there", tmp_path / "back").ok()
    assert (tmp_path / "back").read_text() == "text\n"
    assert connection(machine) == before


def test_it_lasts_while_the_machine_is_suspended(machine: str) -> None:
    before = connection(machine)
    armvm("suspend", machine).ok()
    armvm("ssh", machine, "--", "true").failed(10)
    armvm("resume", machine).ok()
    assert connection(machine) == before


def test_a_reboot_from_inside_ends_it(machine: str) -> None:
    before = boot(machine)
    reboot(machine)
    assert boot(machine) not in ("", before)


def test_a_reset_ends_it(machine: str) -> None:
    """The guest does not tell, and QEMU keeps running."""
    before = boot(machine)
    assert before
    virsh("reset", machine)
    another_boot(machine, before)


def test_the_next_run_has_its_own(machine: str) -> None:
    before = boot(machine)
    virsh("destroy", machine)
    virsh("start", machine)
    another_boot(machine, before)


def test_stop_ends_it(machine: str) -> None:
    assert connection(machine)
    assert len(sockets(machine)) == 1
    armvm("stop", machine, "--force").ok()
    assert sockets(machine) == []


def test_a_new_machine_of_the_same_name_has_its_own(golden: str) -> None:
    name = fresh_name("armvm-share")
    create = ("create", "--from", golden, "--name", name)
    armvm(*create, timeout=CLONE_TIMEOUT).ok()
    try:
        before = connection(name)
        armvm("ssh", name, "--", "touch old").ok()
        old = sockets(name)
        virsh("destroy", name)
        armvm("delete", "--yes", name).ok()
        armvm(*create, timeout=CLONE_TIMEOUT).ok()
        assert connection(name) != before
        assert armvm("ssh", name, "--", "test -e old").code == 1
        assert sockets(name) != old
    finally:
        armvm("delete", "--yes", name)


def test_another_machine_at_the_same_port_is_not_taken_for_it(golden: str) -> None:
    first, second = (fresh_name("armvm-share") for _ in range(2))
    try:
        for name in (first, second):
            armvm("create", "--from", golden, "--name", name, timeout=CLONE_TIMEOUT).ok()
        port = armvm("show", first, "--json").ok().json["ssh"]["port"]
        virsh("destroy", first)
        rule = f"hostfwd_add armvm0 tcp:127.0.0.1:{port}-:22"
        virsh("qemu-monitor-command", "--hmp", second, rule)
        armvm("start", first, "--no-wait").ok()
        assert armvm("show", first, "--json").ok().json["ssh"]["port"] != port
        armvm("wait", first, timeout=BOOT_TIMEOUT).ok()
        for name in (first, second):
            assert armvm("ssh", name, "--", "hostname").ok().out == f"{name}\n"
    finally:
        for name in (first, second):
            armvm("delete", "--yes", name)
