"""Warm start on real guests: one golden, clones of it, and all that must differ between them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from armvm.provision.golden.clone import CLUSTER
from tests.boot.conftest import POOL, leftovers, reboot
from tests.libvirt.world import virsh
from tests.support import ARMVM, Result, armvm, environment, fresh_name, spawn

#: Seconds for a clone: it takes two on a quiet host, and tests run on busy ones.
CLONE_TIMEOUT = 180


def clone(golden: str, name: str, *more: str) -> Result:
    return armvm("create", "--from", golden, "--name", name, *more, timeout=CLONE_TIMEOUT)


def identity(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = armvm("show", name, "--identity", "--json").ok().json
    return facts


def made_clones(golden: str, count: int) -> list[dict[str, Any]]:
    """Make clones; return what create tells of them, with their clock's error in seconds."""
    made = []
    for _ in range(count):
        done = clone(golden, fresh_name("armvm-clone"), "--json").ok()
        assert "created from golden" in done.err
        facts = done.json
        before = time.time()
        clock = float(armvm("ssh", facts["name"], "--", "date +%s.%N").ok().out)
        after = time.time()
        made.append({**facts, "clock": max(before - clock, clock - after, 0.0)})
    return made


def assert_all_differ(told: list[dict[str, Any]]) -> None:
    """See that clones, as they tell of themselves, have nothing in common that tells machines."""
    for key in (
        "hostname", "hostname_file", "machine_id", "dbus_id", "boot_id", "instance_id",
        "host_key", "random", "random_uuid",
    ):  # fmt: skip
        values = [facts[key] for facts in told]
        assert len(set(values)) == len(values), f"{key} is the same in two clones: {values}"
        assert all(values), key


@pytest.fixture(scope="module")
def clones(golden: str) -> list[dict[str, Any]]:
    """Two clones."""
    return made_clones(golden, 2)


def test_a_golden_is_listed_and_verified_and_is_no_machine(golden: str) -> None:
    found = {one["name"]: one for one in armvm("golden", "list", "--json").ok().json}
    assert found[golden]["fits"] is True
    assert found[golden]["shape"]["memory_mib"] == 1024
    assert golden not in armvm("list").ok().out
    armvm("start", golden).failed(4)
    armvm("golden", "verify", golden).ok()
    armvm("golden", "show", "armvm-no-such").failed(4)


def test_a_goldens_kernel_does_not_isolate_its_page_tables(
    golden: str, clones: list[dict[str, Any]]
) -> None:
    """It was loaded from outside, for one boot: nothing of that is left."""
    boots = "dmesg | grep -c 'page table isolation forced OFF'; cat /proc/cmdline"
    count, command_line = (
        armvm("exec", clones[0]["name"], "--", "sh", "-c", boots).ok().out.split("\n", 1)
    )
    assert count == "1"
    assert "kpti=0" in command_line.split()
    for name in (golden, clones[0]["name"]):
        assert "<kernel>" not in virsh("dumpxml", "--inactive", name)
    assert not list(POOL.glob(f"{golden}.kernel")) + list(POOL.glob(f"{golden}.initrd"))


def test_clones_are_themselves_in_every_item(golden: str, clones: list[dict[str, Any]]) -> None:
    born = armvm("golden", "show", golden, "--json").ok().json
    told = [identity(one["name"]) for one in clones]
    assert_all_differ(told)
    for facts, one in zip(told, clones, strict=True):
        assert facts["hostname"] == facts["hostname_file"] == one["name"] != golden
        assert facts["instance_id"] == one["instance_id"]
        assert facts["machine_id"] == one["uuid"].replace("-", "")
        assert one["host_key"] != born["host_key"]
        assert one["golden"] == golden


def test_the_first_random_bytes_of_two_clones_differ(golden: str) -> None:
    """Read by the first command of each clone, so that nothing has stirred them apart since."""
    command = "head -c 32 /dev/urandom | sha256sum; cat /proc/sys/kernel/random/uuid"
    told = [
        armvm("run", "--from", golden, "--", "sh", "-c", command, timeout=CLONE_TIMEOUT).ok().out
        for _ in range(2)
    ]
    first, second = (text.split() for text in told)
    assert not set(first) & (set(second) - {"-"})


def test_the_clock_is_right_when_ready(clones: list[dict[str, Any]]) -> None:
    assert [one["clock"] for one in clones if one["clock"] >= 0.5] == []


def test_a_clone_is_a_working_machine(clones: list[dict[str, Any]]) -> None:
    one = clones[0]
    out = armvm("ssh", one["name"], "--", "whoami; sudo -n whoami; getent hosts $(hostname)").ok()
    user, root, resolved = out.out.splitlines()
    assert (user, root) == ("debian", "root")
    assert one["name"] in resolved
    armvm("wait", one["name"]).ok()
    assert "status: done" in armvm("ssh", one["name"], "--", "cloud-init status").ok().out


def test_only_the_keys_asked_for_may_log_in(golden: str, key: Path, name: str) -> None:
    facts = clone(golden, name, "--ssh-key", str(key), "--json").ok().json
    words = ["ssh", "-p", str(facts["ssh"]["port"]), "-o", "StrictHostKeyChecking=no"]
    words += [
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "IdentitiesOnly=yes",
    ]
    words += ["-i", str(key.with_suffix("")), "debian@127.0.0.1", "cat .ssh/authorized_keys"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == key.read_text().strip()


def test_the_definition_is_clean_while_the_first_run_lasts(clones: list[dict[str, Any]]) -> None:
    words = ["virsh", "-c", "qemu:///system", "dumpxml", clones[0]["name"]]
    live = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    kept = subprocess.run([*words, "--inactive"], capture_output=True, text=True, check=True).stdout
    assert "memory-backend-file" in live
    assert "qemu:" not in kept
    assert "memory-backend-file" not in kept


def test_a_clones_disk_grows_in_small_steps(clones: list[dict[str, Any]]) -> None:
    words = ["qemu-img", "info", "-U", "--output=json", clones[0]["overlay"]]
    told = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert told["cluster-size"] == CLUSTER


def test_a_clone_is_saved_and_restored_in_its_first_run(
    clones: list[dict[str, Any]], tmp_path: Path
) -> None:
    virsh, file = ["virsh", "-c", "qemu:///system"], tmp_path / "saved"
    tmp_path.chmod(0o755)
    before = identity(clones[0]["name"])
    subprocess.run([*virsh, "save", clones[0]["name"], file], check=True, capture_output=True)
    subprocess.run([*virsh, "restore", file], check=True, capture_output=True)
    assert identity(clones[0]["name"])["machine_id"] == before["machine_id"]
    assert armvm("ssh", clones[0]["name"], "--", "hostname").ok().out.strip() == clones[0]["name"]


def test_a_golden_with_clones_is_not_deleted(golden: str, clones: list[dict[str, Any]]) -> None:
    error = armvm("golden", "delete", "--yes", golden).failed(5)
    assert all(one["name"] in error.err for one in clones)
    armvm("golden", "verify", golden).ok()


def test_a_name_that_is_taken(golden: str, clones: list[dict[str, Any]]) -> None:
    clone(golden, clones[0]["name"]).failed(5)
    armvm("ssh", clones[0]["name"], "--", "true").ok()


def test_a_matching_golden_is_used_without_asking(
    golden: str, debian_image: Path, name: str
) -> None:
    shape = ("--preset", "minimal", "--network", "user", "--image", debian_image)
    done = armvm("create", "--name", name, *shape, timeout=CLONE_TIMEOUT).ok()
    assert "created from golden" in done.err
    assert f"{name} is ready" in done.out


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--cpus", "1"), "cpus 2 (requested: 1)"),
        (("--user", "alice"), "user debian (requested: alice)"),
        (("--network", "armvm"), "network user (requested: libvirt)"),
    ],
    ids=["cpus", "user", "network"],
)
def test_another_shape_boots_cold_and_says_so(
    golden: str, name: str, more: tuple[str, ...], reason: str
) -> None:
    done = clone(golden, name, "--no-wait", *more).ok()
    assert reason in done.err
    assert "falling back to a cold boot" in done.err
    assert armvm("show", name, "--json").ok().json["golden"] is None


def test_cold_refuses_a_golden(golden: str, debian_image: Path, name: str) -> None:
    shape = ("--preset", "minimal", "--network", "user", "--image", debian_image)
    done = armvm("create", "--name", name, *shape, "--cold", "--no-wait").ok()
    assert "golden" not in done.err
    clone(golden, name, "--cold").failed(2)


@pytest.mark.parametrize("what", ["machine type", "firmware", "QEMU", "libvirt"])
def test_a_changed_host_boots_cold_and_says_so(golden: str, name: str, what: str) -> None:
    """The golden's record is changed instead of the host: it then was made on another one."""
    virsh = ["virsh", "-c", "qemu:///system"]
    kept = subprocess.run(
        [*virsh, "dumpxml", "--inactive", golden], capture_output=True, text=True, check=True
    ).stdout
    ground = json.dumps(what)[1:-1]
    assert f'"{ground}": "' in kept
    changed = kept.replace(f'"{ground}": "', f'"{ground}": "another ')
    try:
        subprocess.run([*virsh, "define", "/dev/stdin"], input=changed, text=True, check=True)
        done = clone(golden, name, "--no-wait").ok()
        assert "falling back to a cold boot" in done.err
        assert f": {what} " in done.err
        assert " here, another " in done.err
        armvm("golden", "verify", golden).failed(5)
    finally:
        subprocess.run([*virsh, "define", "/dev/stdin"], input=kept, text=True, check=True)
    armvm("golden", "verify", golden).ok()


def test_a_golden_travels_as_a_file(golden: str, name: str, tmp_path: Path) -> None:
    file, copy = tmp_path / "a.golden", f"{name}-g"
    armvm("golden", "export", golden, file, timeout=CLONE_TIMEOUT).ok()
    armvm("golden", "import", file, "--as", copy, timeout=CLONE_TIMEOUT).ok()
    try:
        words = ("run", "--from", copy, "--", "sh", "-c", "uname -m; exit 7")
        done = armvm(*words, timeout=CLONE_TIMEOUT)
        assert (done.code, done.out) == (7, "aarch64\n"), done.err
        assert f"created from golden {copy}" in done.err
        both = [clone(copy, name, "--json").ok().json, *made_clones(golden, 1)]
        assert_all_differ([identity(one["name"]) for one in both])
    finally:
        armvm("delete", name, "--yes")
        armvm("golden", "delete", copy, "--yes").ok()


def test_a_damaged_state_boots_cold_and_says_so(golden: str, name: str) -> None:
    state = POOL / f"{golden}.state"
    kept = state.read_bytes()
    try:
        state.write_bytes(b"\0" * len(kept))
        done = clone(golden, name, "--no-wait").ok()
        assert "falling back to a cold boot" in done.err
        armvm("golden", "verify", golden).failed(9)
    finally:
        state.write_bytes(kept)


@pytest.mark.parametrize(
    "delay",
    [0.5, 1.1, 2.0, *(pytest.param(one, marks=pytest.mark.slow) for one in (0.8, 1.5, 3.0))],
)
def test_a_killed_create_leaves_nothing_that_the_next_does_not_remove(
    golden: str, name: str, delay: float
) -> None:
    process = spawn("create", "--from", golden, "--name", name)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = clone(golden, name)
    if again.code == 5:  # it was killed on its way out, or had ended: the machine is whole
        assert armvm("show", name, "--json").ok().json["state"] == "running"
    else:
        again.ok()
    assert armvm("ssh", name, "--", "hostname").ok().out.strip() == name
    armvm("delete", "--yes", name).ok()
    assert leftovers(name) == []


def test_an_interrupted_create_leaves_nothing(golden: str, name: str) -> None:
    process = spawn("create", "--from", golden, "--name", name)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    process.communicate()
    if process.returncode == 0:
        pytest.skip("it was faster")
    assert process.returncode == 130
    assert leftovers(name) == []


def test_run_passes_streams_and_the_exit_code_and_leaves_nothing(golden: str) -> None:
    done = armvm(
        *("run", "--from", golden, "--env", "A=b c", "--"),
        *("sh", "-c", 'echo "$A"; hostname; cat; echo oops >&2; exit 7'),
        stdin="through\n",
        timeout=CLONE_TIMEOUT,
    )
    assert done.code == 7, done.err
    value, name, through = done.out.splitlines()
    assert (value, through) == ("b c", "through")
    assert "oops" in done.err
    assert leftovers(name) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_removes_its_machine_when_it_is_interrupted(golden: str, number: int) -> None:
    """By a signal for it alone: a CI runner has no terminal whose Ctrl-C its ssh gets too."""
    process = spawn("run", "--from", golden, "--", "sh", "-c", "hostname; exec sleep 600")
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert leftovers(name) != []
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert leftovers(name) == []


def test_run_on_a_terminal(golden: str) -> None:
    """The command gets a terminal of the same size; keys arrive, and Ctrl-C is a signal there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    before = termios.tcgetattr(slave)
    script = "trap 'echo caught; exit 5' INT; tty; stty size; read word; echo got $word; sleep 60"
    process = subprocess.Popen(
        [*ARMVM, "run", "--from", golden, "--", "sh", "-c", script],
        env=environment(TERM="vt100"), stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        seen = _read_until(master, b"33 77")
        assert b"/dev/pts/" in seen
        os.write(master, b"typed\r")
        _read_until(master, b"got typed")
        os.write(master, b"\x03")
        _read_until(master, b"caught")
        assert process.wait(60) == 5
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.communicate()
        os.close(master)
        os.close(slave)


def _read_until(master: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        assert select.select([master], [], [], CLONE_TIMEOUT)[0], seen
        seen += os.read(master, 4096)
    return seen


def test_run_ends_with_its_command_and_as_it_did(golden: str) -> None:
    """What the command leaves behind holds its output; a signal that ends it is told."""
    script = "sleep 300 & echo started; kill -SEGV $$"
    done = armvm("run", "--from", golden, "--", "sh", "-c", script, timeout=CLONE_TIMEOUT)
    assert (done.code, done.out) == (139, "started\n")


def test_a_killed_runs_machine_goes_with_the_next_run(golden: str) -> None:
    process = spawn("run", "--from", golden, "--", "sh", "-c", "hostname; exec sleep 600")
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    if process.stderr is not None:
        process.stderr.close()  # not read to its end: the ssh that was left behind still has it
    done = armvm("run", "--from", golden, "--", "true", timeout=CLONE_TIMEOUT).ok()
    assert name in done.err
    assert leftovers(name) == []


@pytest.mark.slow
def test_a_clone_stays_itself_through_a_reboot(clones: list[dict[str, Any]]) -> None:
    """From then on nothing of the golden's memory is left."""
    name = clones[0]["name"]
    before = identity(name)
    reboot(name)
    after = identity(name)
    kept = ("hostname", "hostname_file", "machine_id", "dbus_id", "instance_id", "host_key")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert after["boot_id"] != before["boot_id"]
    out = armvm("ssh", name, "--", "cloud-init status; systemctl --failed --no-legend").ok().out
    assert "status: done" in out
    assert "●" not in out


def test_delete_removes_a_clone_whole(clones: list[dict[str, Any]], golden: str) -> None:
    for one in clones:
        armvm("delete", "--yes", one["name"]).ok()
        assert leftovers(one["name"]) == []
    armvm("golden", "verify", golden).ok()
