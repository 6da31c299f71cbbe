"""Getting at a guest: exec by its two ways, cp, logs, ssh-config. One clone serves all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from armvm.host.console.serial_log import Place, read_on, read_tail
from tests import schemas
from tests.boot.conftest import BOOT_TIMEOUT
from tests.foreign_programs import busybox
from tests.ssh_tools import at_home
from tests.support import ARMVM, Result, armvm, environment, fresh_name, spawn

CLONE_TIMEOUT = 180
CLONE_AGENT = "armvm-clone-agent.service"


@pytest.fixture(scope="module")
def machine(golden: str) -> Iterator[str]:
    """A clone with user networking."""
    name = fresh_name("armvm-clone")
    armvm("create", "--from", golden, "--name", name, timeout=CLONE_TIMEOUT).ok()
    yield name
    armvm("delete", "--yes", name)


@pytest.fixture(scope="module", params=["channel", "agent"])
def way(machine: str, request: pytest.FixtureRequest) -> str:
    """The way that exec takes: the clone's own channel, or the guest agent once that is gone."""
    if request.param == "agent":
        run(machine, "systemctl", "stop", CLONE_AGENT)
        lost = run(machine, "true").ok()
        assert f"the clone agent in {machine} has ended" in lost.err
        assert "using the guest agent" in lost.err
    else:
        assert run(machine, "true").ok().err == ""
    return str(request.param)


def run(machine: str, *words: str, options: tuple[str, ...] = (), stdin: str = "") -> Result:
    """Run a command with exec."""
    return armvm("exec", machine, *options, "--", *words, stdin=stdin)


def test_the_kernel_runs_32_bit_programs(machine: str) -> None:
    """Containers of arm/v7 work in a machine too, by no emulation but the machine's own."""
    armvm("cp", busybox("armhf"), f"{machine}:/tmp/busybox").ok()
    assert run(machine, "/tmp/busybox", "echo", "hello").ok().out == "hello\n"
    # The kernel gives its own name, unless the caller has the personality of a 32-bit one.
    assert run(machine, "/tmp/busybox", "uname", "-m").ok().out == "aarch64\n"
    told = run(machine, "setarch", "linux32", "/tmp/busybox", "uname", "-m").ok().out
    assert told == "armv8l\n"


def said(done: Result) -> str:
    """Return a command's error output without armvm's own line about the way."""
    return "".join(
        line for line in done.err.splitlines(True) if "using the guest agent" not in line
    )


def test_exec_passes_words_output_and_exit_code(machine: str, way: str) -> None:
    words = ("a  b", "$HOME", "it's", "*", "--json", "")
    done = run(machine, "sh", "-c", 'printf "<%s>" "$@"; pwd; id -u >&2; exit 7', "x", *words)
    assert done.code == 7
    assert done.out == "".join(f"<{word}>" for word in words) + "/root\n"
    assert said(done) == "0\n"
    assert run(machine, "sh", "-c", "kill -INT $$").code == 128 + signal.SIGINT
    assert run(machine, "no-such-program").code == 127


@pytest.mark.slow
def test_a_clones_boot_is_its_goldens(machine: str, golden: str) -> None:
    report = armvm("boot-report", machine, "--json", timeout=700).ok().json
    assert report["golden"] == golden
    assert 0 < report["clone_seconds"] < CLONE_TIMEOUT
    assert {"kernel", "systemd"} <= {span["name"] for span in report["spans"]}
    assert any("did not boot itself" in note for note in report["notes"])


def test_exec_as_another_user_and_with_input(machine: str, way: str) -> None:
    user = armvm("show", machine, "--json").ok().json["user"]
    text = "ä\n" * 30_000  # two pieces of input
    script = "cat; id -un >&2; pwd >&2; echo $HOME >&2; : >/dev/stderr"
    done = run(machine, "sh", "-c", script, options=("--user", user), stdin=text).ok()
    assert done.out == text
    assert said(done) == f"{user}\n/home/{user}\n/home/{user}\n"
    assert (
        "user 'nobody-here' not found"
        in run(machine, "true", options=("--user", "nobody-here")).failed(4).err
    )
    assert "invalid user name" in run(machine, "true", options=("--user", "a b")).failed(3).err


def test_exec_cuts_nothing_and_streams(machine: str, way: str) -> None:
    """5 MB: more than a piece, and more than one message of libvirt's carries."""
    command = [*ARMVM, "exec", machine, "--", "sh", "-c", "echo first; sleep 3; seq 1 700000"]
    begun = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        first = time.monotonic() - begun
        rest = process.stdout.read()
    assert process.returncode == 0
    assert time.monotonic() - begun - first > 2.0, (
        "the first line came before the others were there"
    )
    wanted = "".join(f"{number}\n" for number in range(1, 700_001)).encode()
    assert hashlib.sha256(rest).hexdigest() == hashlib.sha256(wanted).hexdigest()


def test_exec_ends_what_it_began(machine: str, way: str) -> None:
    began = spawn("exec", machine, "--", "sh", "-c", "echo here; sleep 7171")
    assert began.stdout is not None
    assert began.stdout.readline() == "here\n"
    began.send_signal(signal.SIGINT)
    began.communicate(timeout=60)
    assert began.returncode == 128 + signal.SIGINT
    late = run(machine, "sleep", "7272", options=("--timeout", "2")).failed(12)
    assert "2 s" in late.err
    # A process that stays behind with the output in its hand is not waited for.
    stays = run(machine, "sh", "-c", "sleep 7373 & echo started").ok()
    assert stays.out == "started\n"
    left = run(machine, "sh", "-c", "ps -eo args | grep -c '^sleep 7[12]'; ls -d /run/armvm-exec-*")
    count, *directories = left.out.split()
    assert count == "0"
    assert len(directories) == (1 if way == "agent" else 0), "its own"
    run(machine, "pkill", "-x", "sleep")


def test_exec_in_json(machine: str, way: str) -> None:
    done = run(machine, "sh", "-c", r"printf 'a\377'; exit 3", options=("--json",))
    assert done.code == 3
    kept = schemas.check("exec", done.json)
    assert (kept["exit_code"], kept["stdout"], kept["stderr"]) == (3, "a\ufffd", "")


def test_cp_there_and_back(machine: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub dir").mkdir(parents=True)
    for number, name in enumerate(("a b", "-lead", "s*r", "ssr", "c:d", "[x]", "sub dir/ä'\"")):
        (tree / name).write_text(f"{number}\n")
    (tree / "run").write_text("#!")
    (tree / "run").chmod(0o751)
    os.utime(tree / "run", (1_000_000_000, 1_000_000_000))
    armvm("cp", "-r", "./tree", f"{machine}:/tmp", cwd=tmp_path).ok()
    assert run(machine, "stat", "-c", "%a %Y %U", "/tmp/tree/run").ok().out.split()[:2] == [
        "751",
        "1000000000",
    ]
    back = tmp_path / "back"
    armvm("cp", "-r", f"{machine}:/tmp/tree", back).ok()
    subprocess.run(["diff", "-r", tree, back], check=True)
    assert (back / "run").stat().st_mtime == 1_000_000_000
    (tmp_path / "one").mkdir()
    armvm(
        *("cp", f"{machine}:/tmp/tree/s*r", f"{machine}:/tmp/tree/-lead", "one/"), cwd=tmp_path
    ).ok()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["-lead", "s*r"]
    armvm("cp", "--", "./c:d", f"{machine}:sp ace", cwd=tree).ok()
    assert armvm("ssh", machine, "--", "cat 'sp ace'").ok().out == "4\n"
    assert "exit code 1" in armvm("cp", f"{machine}:/none", tmp_path).failed(12).err
    assert "both sides" in armvm("cp", f"{machine}:a", "other:b").failed(2).err


def test_logs_near_and_from_afar(machine: str, connection: object) -> None:
    follower = spawn("logs", machine, "-f", "-n", "0")
    time.sleep(2)
    words = r"printf '\033[31mred\033[0m\033[6n tea\r\n' >/dev/ttyAMA0"
    run(machine, "sh", "-c", words).ok()
    assert follower.stdout is not None
    assert follower.stdout.readline() == "red tea\n"
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=30)
    assert follower.returncode == 128 + signal.SIGINT
    assert armvm("logs", machine, "-n", "1").ok().out == "red tea\n"
    assert "\x1b[31mred\x1b[0m\x1b[6n tea" in armvm("logs", machine, "--raw").ok().out
    path = armvm("show", machine, "--json").ok().json["serial_log"]
    assert read_tail(connection, path, local=False) == read_tail(connection, path, local=True)
    place = Place()
    assert read_on(connection, path, place, local=False) == Path(path).read_bytes()
    assert read_on(connection, path, place, local=False) == b""


def test_ssh_knows_it_wherever_it_is(machine: str, tmp_path: Path) -> None:
    there = at_home(tmp_path)
    config = tmp_path / ".ssh" / "config"
    try:
        done = schemas.check(
            "ssh-config",
            armvm("ssh-config", "--install", machine, "--json", prefix=[*there, *ARMVM]).ok().json,
        )
        assert done["changed"]
        assert done["config"] == str(config)
        assert [one["name"] for one in done["machines"]] == [machine]
        ssh = [*there, "ssh", machine]
        said = subprocess.run([*ssh, "uname", "-m"], capture_output=True, text=True, check=True)
        assert (said.stdout, said.stderr) == ("aarch64\n", "")
        # The forward moves to another port: nothing has to be told to ssh.
        before = armvm("show", machine, "--json").ok().json["ssh"]["port"]
        monitor = ["virsh", "qemu-monitor-command", machine, "--hmp"]
        rule = f"tcp:127.0.0.1:{before}"
        subprocess.run([*monitor, f"hostfwd_remove hostnet0 {rule}"], check=True)
        with_data = subprocess.run([*ssh, "cat"], input=b"\0x" * 100_000, capture_output=True)
        assert with_data.stdout == b"\0x" * 100_000
        assert Path(done["machines"][0]["file"]).exists()
        again = armvm("ssh-config", "--install", machine, "--json", prefix=[*there, *ARMVM])
        assert not again.ok().json["changed"]
    finally:
        done = armvm("ssh-config", "--remove", machine, "--json", prefix=[*there, *ARMVM])
        gone = done.ok().json
    assert schemas.check("ssh-config", gone)["machines"] != []
    assert not Path(gone["machines"][0]["file"]).exists()


def test_a_screenshot_needs_a_screen(machine: str, tmp_path: Path) -> None:
    refused = armvm("screenshot", machine, tmp_path / "x.png").failed(10)
    assert "headless" in refused.err
    assert not (tmp_path / "x.png").exists()


@pytest.mark.slow
def test_a_directory_of_the_host_is_mounted_for_good(machine: str, tmp_path: Path) -> None:
    """The first one restarts the machine: its memory was private. The second does not."""
    first, second = tmp_path / "first one", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        (directory / "here").write_text(directory.name)
    words = ("mount", first, f"{machine}:/mnt/first one")
    assert "--allow-root" in armvm(*words).failed(6).err
    assert "--restart" in armvm(*words, "--allow-root").failed(10).err
    done = armvm(*words, "--restart", "--allow-root", "--json", timeout=BOOT_TIMEOUT).ok()
    assert [one["source"] for one in schemas.check("mount", done.json)] == [str(first)]
    assert run(machine, "cat", "/mnt/first one/here").ok().out == "first one"
    run(machine, "sh", "-c", "echo back >'/mnt/first one/there'").ok()
    assert (first / "there").read_text() == "back\n"
    (first / "later").write_text("seen")
    assert run(machine, "cat", "/mnt/first one/later").ok().out == "seen"

    options = ("--read-only", "--allow-root", "--tag", "two")
    armvm("mount", second, f"{machine}:/mnt/second", *options, timeout=CLONE_TIMEOUT).ok()
    assert run(machine, "cat", "/mnt/second/here").ok().out == "second"
    assert "Read-only" in run(machine, "touch", "/mnt/second/x").err
    armvm("mount", second, f"{machine}:/mnt/second").failed(5)
    armvm("mount", second, f"{machine}:/mnt/third", "--tag", "two").failed(5)
    armvm("mount", tmp_path / "none", f"{machine}:/mnt/third").failed(4)
    rows = schemas.check("mount", armvm("mount", "--list", machine, "--json").ok().json)
    assert [(row["target"], row["read_only"], row["attached"]) for row in rows] == [
        ("/mnt/first one", False, True),
        ("/mnt/second", True, True),
    ]

    busy = spawn("exec", machine, "--", "sh", "-c", "cd /mnt/second; echo in; sleep 60")
    assert busy.stdout is not None
    assert busy.stdout.readline() == "in\n"
    assert "in use" in armvm("umount", f"{machine}:/mnt/second").failed(5).err
    busy.send_signal(signal.SIGTERM)
    busy.communicate(timeout=60)
    for target in ("/mnt/second", "/mnt/first one"):
        armvm("umount", f"{machine}:{target}", timeout=200).ok()
    assert armvm("mount", "--list", machine, "--json").ok().json == []
    left = run(machine, "sh", "-c", "grep -c virtiofs /etc/fstab /proc/mounts").out
    assert left == "/etc/fstab:0\n/proc/mounts:0\n"
    armvm("umount", f"{machine}:/mnt/second").failed(4)


def test_without_an_agent_ssh_is_named(machine: str) -> None:
    """The last one here: the agent is ended."""
    armvm("ssh", machine, "--", "sudo systemctl stop qemu-guest-agent").ok()
    refused = run(machine, "true").failed(10)
    assert "guest agent of" in refused.err
    assert f"armvm ssh {machine}" in refused.err


@pytest.mark.slow
def test_a_mount_that_fails_after_its_restart_leaves_nothing(golden: str, tmp_path: Path) -> None:
    """The guest's next boot mounts something else at the place that was free before it."""
    name, shared = fresh_name("armvm-clone"), tmp_path / "shared"
    shared.mkdir()
    armvm("create", "--from", golden, "--name", name, timeout=CLONE_TIMEOUT).ok()
    try:
        line = "tmpfs /mnt/taken tmpfs nofail 0 0"
        run(name, "sh", "-c", f"mkdir /mnt/taken && echo '{line}' >>/etc/fstab && sync").ok()
        table = run(name, "cat", "/etc/fstab").ok().out
        with libvirt.open("qemu:///system") as connection:
            domain = connection.lookupByName(name)
            before = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            options = ("--restart", "--allow-root")
            words = ("mount", shared, f"{name}:/mnt/taken", *options)
            refused = armvm(*words, timeout=BOOT_TIMEOUT).failed(5)
            assert "mounted" in refused.err
            assert domain.isActive()
            assert domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
        assert armvm("mount", "--list", name, "--json").ok().json == []
        assert run(name, "cat", "/etc/fstab").ok().out == table
        assert "virtiofs" not in run(name, "cat", "/proc/mounts").ok().out
        armvm("wait", name, timeout=BOOT_TIMEOUT).ok()
    finally:
        armvm("delete", "--yes", name)
