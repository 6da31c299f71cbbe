"""Every verb on another host's machines, for a client that reaches nothing but that host's ssh."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from armvm.host.memory import route as memory
from armvm.provision.access.jump import jump_of, socket_of
from tests.boot.test_warm import assert_all_differ
from tests.golden_files import exported
from tests.remote.conftest import BOOT_TIMEOUT, Machine
from tests.remote.host import HOST, URI, OtherHost
from tests.ssh_tools import at_home
from tests.support import ARMVM, environment


def guest_address(lab: OtherHost, name: str) -> str:
    """Return a machine's address on the other host's network."""
    return str(lab.armvm("ip", name, "--json").ok().json["addresses"][0]["address"])


def test_the_client_has_no_route_to_the_machines(lab: OtherHost, box: Machine) -> None:
    address = guest_address(lab, box.name)
    route = lab.client_runs("ip", "route", "get", address, check=False)
    assert route.returncode != 0
    assert "unreachable" in route.stderr
    there = lab.host_runs("ip", "route", "get", address)
    assert "virbr" in there.stdout or "armvm" in there.stdout


def test_a_golden_made_over_ssh_serves_both_sides(
    lab: OtherHost, golden: str, box: Machine
) -> None:
    """The host itself refused it: only what is local stamps QEMU's and the firmware's files."""
    shown = lab.armvm_there("golden", "show", golden, "--json").ok().json
    assert shown["fits"], shown["why_not"]
    assert shown["route"] == "save-image"
    lab.armvm_there("golden", "verify", golden).ok()
    assert [one["name"] for one in lab.armvm("golden", "list", "--json").ok().json] == [golden]
    made = lab.armvm_there("create", "--name", "near", "--from", golden, "--json", timeout=300)
    try:
        assert made.ok().json["golden"] == golden, made.err
        assert lab.armvm_there("ssh", "near", "--", "hostname").ok().out == "near\n"
        told = [
            side("show", name, "--identity", "--json").ok().json
            for side, name in ((lab.armvm_there, "near"), (lab.armvm, box.name))
        ]
        assert_all_differ(told)
        assert [facts["hostname"] for facts in told] == ["near", box.name]
    finally:
        lab.armvm("delete", "--yes", "near").ok()


def test_a_clone_says_through_which_host_it_is_reached(lab: OtherHost, box: Machine) -> None:
    assert box.created["golden"] == "ci"
    address = guest_address(lab, box.name)
    assert box.created["ssh"] == {
        "host": address, "port": 22, "via": "lab", "user": box.created["user"]
    }  # fmt: skip
    [line] = [one for one in lab.armvm("list", "--json").ok().json if one["name"] == box.name]
    assert (line["ssh"], line["via"]) == (f"{address}:22", "lab")
    assert f"{address}:22 via lab" in lab.armvm("list").ok().out
    assert lab.armvm("ip", box.name, "--json").ok().json["via"] == "lab"
    near = [one for one in lab.armvm_there("list", "--json").ok().json if one["name"] == box.name]
    assert (near[0]["ssh"], near[0]["via"]) == (f"{address}:22", None)


def test_wait_and_ssh(lab: OtherHost, box: Machine) -> None:
    assert "is ready" in lab.armvm("wait", box.name, timeout=BOOT_TIMEOUT).ok().out
    done = lab.armvm("ssh", box.name, "--", "uname -m; exit 7")
    assert (done.code, done.out, done.err) == (7, "aarch64\n", "")
    assert lab.armvm("ssh", box.name, "--", "cat", stdin="in\n").ok().out == "in\n"


def test_files_are_copied_both_ways(lab: OtherHost, box: Machine, tmp_path: Path) -> None:
    source = tmp_path / "a %h file"
    source.write_bytes(random.Random(0).randbytes(1 << 16))
    lab.armvm("cp", source, f"{box.name}:there").ok()
    lab.armvm("cp", f"{box.name}:there", tmp_path / "back").ok()
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_what_needs_libvirt_alone(lab: OtherHost, box: Machine) -> None:
    done = lab.armvm("exec", box.name, "--", "sh", "-c", "hostname; exit 3")
    assert (done.code, done.out) == (3, f"{box.name}\n")
    done = lab.armvm("console", box.name, stdin="\necho far-$((40 + 2))\n", timeout=200)
    assert "far-42" in done.ok().out
    tops = lab.armvm("top", "--once", "--json").ok().json
    assert box.name in json.dumps(tops)
    assert lab.armvm("show", box.name, "--identity", "--json").ok().json["hostname"] == box.name
    told = lab.armvm("explain", "network", box.name, "--json").ok().json
    assert told["values"]["ssh"] == f"{guest_address(lab, box.name)}:22 via lab"


@pytest.mark.slow
def test_a_clones_boot_is_reported(lab: OtherHost, box: Machine) -> None:
    report = lab.armvm("boot-report", box.name, "--json", timeout=700).ok().json
    assert report["golden"] == "ci"


@pytest.mark.slow
def test_a_machine_that_starts_and_stops_is_seen(lab: OtherHost, held: str, tmp_path: Path) -> None:
    words = lab.at_client(*ARMVM, "events", "--json", "--count", "1", "--timeout", "100")
    env = environment(**lab.env, ARMVM_CONNECT=URI)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as events:
        time.sleep(10)  # until it listens
        lab.armvm("start", held, "--no-wait").ok()
        assert held in events.communicate(timeout=120)[0]
    lab.armvm("screenshot", held, tmp_path / "shot.png").ok()
    assert (tmp_path / "shot.png").read_bytes().startswith(b"\x89PNG")
    assert lab.armvm("logs", held).ok()
    lab.armvm("stop", "--force", held).ok()


def test_a_throw_away_machine_with_files(lab: OtherHost, golden: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/in").write_text("from here")
    done = lab.armvm(
        *("run", "--from", golden, "--mount", tmp_path / "src", "--"),
        *("sh", "-c", "cat in; echo changed > out; exit 4"),
        timeout=300,
    )
    assert (done.code, done.out) == (4, "from here"), done.err
    assert (tmp_path / "src/out").read_text() == "changed\n"
    assert "falling back to a cold boot" not in done.err


def test_verbs_of_a_machine_that_is_off(lab: OtherHost, held: str) -> None:
    lab.armvm("snapshot", "create", held, "one").ok()
    assert lab.armvm("snapshot", "list", held, "--json").ok().json[0]["name"] == "one"
    lab.armvm("snapshot", "revert", held, "one", "--yes").ok()
    lab.armvm("snapshot", "delete", held, "one", "--yes").ok()
    lab.armvm("resize", held, "--cpus", "1", "--disk", "11G").ok()
    assert lab.armvm("show", held, "--json").ok().json["cpus"] == 1
    lab.armvm("clone", held, "twin", timeout=300).ok()
    lab.armvm("rename", "twin", "other").ok()
    assert {"held", "other"} <= {one["name"] for one in lab.armvm("list", "--json").ok().json}
    lab.armvm("delete", "--yes", "other").ok()
    assert not [path for path in lab.work.glob("lib/images/armvm/*") if path.name[:4] == "twin"]


def test_a_directory_of_the_host_is_named_in_full(lab: OtherHost, box: Machine) -> None:
    refused = lab.armvm("mount", "src", f"{box.name}:/mnt/src").failed(2)
    assert "a directory of the libvirt host" in refused.err


def test_the_users_own_ssh_finds_a_machine(lab: OtherHost, box: Machine, tmp_path: Path) -> None:
    """It printed "interrupted" after each login: ssh ends its ProxyCommand by a signal."""
    there, env = at_home(tmp_path), environment(**lab.env, ARMVM_CONNECT=URI)
    install = lab.at_client(*there, *ARMVM, "ssh-config", "--install")
    subprocess.run(install, env=env, check=True)
    done = subprocess.run(
        lab.at_client(*there, "ssh", box.name, "uname -m"),
        capture_output=True, text=True, env=env, timeout=120, check=True,
    )  # fmt: skip
    time.sleep(1)  # what a dying proxy says comes late
    assert (done.stdout, done.stderr) == ("aarch64\n", "")
    subprocess.run([*install[:-1], "--remove"], env=env, check=True)


def test_a_forward_is_an_ssh_command_that_works(lab: OtherHost, box: Machine) -> None:
    """The offer named "this host", which was the wrong one."""
    refused = lab.armvm("forward", "add", box.name, "8022:22").failed(3)
    assert "lab reaches its port 22" in refused.err
    assert "THIS-HOST" not in refused.err
    command = refused.err.split("from here: ")[1].strip()
    assert command == f"ssh -l root -N -L 8022:{guest_address(lab, box.name)}:22 -- lab"
    with led_on(lab, command):
        assert banner(lab, 8022).startswith("SSH-2.0-")


@contextmanager
def led_on(lab: OtherHost, command: str) -> Iterator[None]:
    """Run an ``ssh -L`` at the client for as long as the block lasts."""
    with subprocess.Popen(lab.at_client(*shlex.split(command)), stdin=subprocess.DEVNULL) as ssh:
        try:
            yield
        finally:
            ssh.terminate()


def banner(lab: OtherHost, port: int) -> str:
    """Return the first line that is said at a port of the client's loopback."""
    script = (
        "import socket, sys, time\n"
        "for _ in range(200):\n"
        "    try:\n"
        "        there = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "        print(there.recv(99).decode())\n"
        "        break\n"
        "    except ConnectionRefusedError:\n"
        "        time.sleep(0.1)\n"
    )
    return lab.client_runs(ARMVM[0], "-c", script, str(port)).stdout


@pytest.mark.slow
def test_a_machine_with_user_networking(lab: OtherHost, debian_image: Path) -> None:
    """Its port is on the other host's loopback, not on the client's. This one boots cold."""
    made = lab.armvm(
        *("create", "--name", "slirp", "--network", "user", "--preset", "minimal", "--mem", "768"),
        *("--image", debian_image, "--cold", "--json", "--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 60,
    ).ok().json  # fmt: skip
    try:
        assert (made["ssh"]["host"], made["ssh"]["via"]) == ("127.0.0.1", "lab")
        assert lab.armvm("ssh", "slirp", "--", "uname -m").ok().out == "aarch64\n"
        assert "Linux version" in lab.armvm("logs", "slirp").ok().out
        added = lab.armvm("forward", "add", "slirp", "8023:22").ok().out
        assert "127.0.0.1:8023 of lab forwards to port 22 of slirp" in added
        command = added.split("from here: ")[1].strip()
        with led_on(lab, command):
            assert banner(lab, 8023).startswith("SSH-2.0-")
        address = f"qemu+ext:///system?command={tunnel(lab)}"
        refused = lab.armvm("ssh", "slirp", "--connect", address).failed(6)
        assert "qemu+ssh://USER@" in refused.err
        assert "armvm exec" in refused.err
        assert lab.armvm("list", "--json", "--connect", address).ok().json
        assert lab.armvm("exec", "slirp", "--connect", address, "--", "true").code == 0
    finally:
        lab.armvm("delete", "--yes", "slirp").ok()


def tunnel(lab: OtherHost) -> Path:
    """Return a program that leads libvirt to the other host, and nothing else."""
    path = lab.work / "tunnel"
    path.write_text("#!/bin/sh\nexec ssh root@lab virt-ssh-helper qemu:///system\n")
    path.chmod(0o755)
    return path


def test_a_way_for_libvirt_alone_is_said_to_be_one(lab: OtherHost, box: Machine) -> None:
    there = ("--connect", f"qemu+ext:///system?command={tunnel(lab)}")
    failed = lab.armvm("ssh", box.name, *there, "--", "true")
    assert failed.code == 255
    assert "qemu+ssh://USER@" in failed.err
    waited = lab.armvm("wait", box.name, "--timeout", "3", *there).failed(11)
    assert "qemu+ssh://USER@" in waited.err


def test_a_host_that_leads_nobody_on_is_not_waited_for(lab: OtherHost, box: Machine) -> None:
    """At this port, its sshd forwards nothing."""
    there = ("--connect", URI.replace("lab", "lab:2222"))
    waited = lab.armvm("wait", box.name, "--timeout", "600", *there).failed(6)
    assert "AllowTcpForwarding" in waited.err
    failed = lab.armvm("ssh", box.name, *there, "--", "true").failed(255)
    assert "AllowTcpForwarding" in failed.err
    assert lab.armvm("exec", box.name, *there, "--", "hostname").ok().out == f"{box.name}\n"


def socket_in(lab: OtherHost) -> Path:
    """Return the socket of the shared connection that URI uses; other URIs have others."""
    jump = jump_of(URI)
    assert jump is not None
    path = socket_of(jump, lab.work / "run")
    assert path is not None
    return path


def master(lab: OtherHost) -> int:
    """Return the process that holds the shared connection."""
    said = lab.client_runs("ssh", "-S", socket_in(lab), "-O", "check", "--", "lab").stderr
    inside = int(said.split("pid=")[1].split(")")[0])
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            numbers = status.read_text().split("NSpid:")[1].split("\n")[0].split()
            words = status.with_name("cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if int(numbers[-1]) == inside and str(socket_in(lab)).encode() in words:
            return int(numbers[0])
    raise AssertionError(said)


def test_one_connection_serves_all_and_none_breaks_anything(lab: OtherHost, box: Machine) -> None:
    def login() -> float:
        begun = time.monotonic()
        lab.armvm("ssh", box.name, "--", "true").ok()
        return time.monotonic() - begun

    login()
    assert socket_in(lab).parent.stat().st_mode & 0o777 == 0o700
    first = master(lab)
    login()
    assert master(lab) == first
    os.kill(first, signal.SIGKILL)  # its socket stays
    assert socket_in(lab).exists()
    login()
    second = master(lab)
    assert second != first
    os.kill(second, signal.SIGSTOP)
    try:
        assert login() < 100
    finally:
        os.kill(second, signal.SIGKILL)
    login()


def test_a_uri_may_say_it_all(lab: OtherHost, box: Machine, tmp_path: Path) -> None:
    """Key, host key and program are the URI's: the client's ssh knows nothing of this address."""
    wrapper = tmp_path / "my ssh 100%"
    wrapper.write_text('#!/bin/sh\nexec ssh -o UserKnownHostsFile=/dev/null "$@"\n')
    wrapper.chmod(0o755)
    key = tmp_path / "my key"
    key.write_bytes((lab.work / "ssh/client").read_bytes())
    key.chmod(0o600)
    quoted = [str(one).replace(" ", "%20").replace("100%", "100%25") for one in (wrapper, key)]
    uri = f"qemu+ssh://root@{HOST}:22/system?no_verify=1&command={quoted[0]}&keyfile={quoted[1]}"
    done = lab.armvm("ssh", box.name, "--connect", uri, "--", "uname -m").ok()
    assert done.out == "aarch64\n"
    (tmp_path / "file").write_text("x")
    lab.armvm("cp", tmp_path / "file", f"{box.name}:file", "--connect", uri).ok()


def test_a_hostile_uri_runs_nothing(lab: OtherHost, tmp_path: Path) -> None:
    made = tmp_path / "made"
    for who in (f"-oProxyCommand=touch%20{made}", f"%2DoProxyCommand=touch%20{made}"):
        for uri in (f"qemu+ssh://{who}/system", f"qemu+ssh://{who}@lab/system"):
            for command in ("list", "doctor"):
                done = lab.armvm(command, "--connect", uri)
                assert done.code != 0
                assert "Traceback" not in done.err
    assert not made.exists()


def test_doctor_says_what_it_sees_from_afar(lab: OtherHost) -> None:
    checks: list[dict[str, Any]] = lab.armvm("doctor", "--json").ok().json
    by_name = {one["name"]: one for one in checks}
    assert by_name["way"]["found"] == "ssh to lab"
    assert "run armvm doctor there" in by_name["other host"]["found"]
    gone = lab.armvm("doctor", "--json", "--connect", f"qemu+ssh://root@{HOST[:-1]}9/system")
    assert gone.code == 6
    assert json.loads(gone.out)[0]["ok"] is False


@pytest.mark.parametrize("what", ["delete", "golden delete"])
def test_what_is_deleted_leaves_nothing(lab: OtherHost, golden: str, what: str) -> None:
    """The last of these tests: machines first, then the golden they stand on."""
    if what == "delete":
        names = [one["name"] for one in lab.armvm("list", "--json").ok().json]
        lab.armvm("delete", "--yes", *names).ok()
        return
    lab.armvm("golden", "delete", "--yes", golden).ok()
    left = [path.name for path in (lab.work / "lib/images/armvm").iterdir()]
    assert [name for name in left if not name.startswith("base-")] == []


@pytest.mark.parametrize("route", [memory.COW, memory.SAVE_IMAGE])
def test_a_golden_travels_to_the_other_host(
    lab: OtherHost, blank_image: Path, tmp_path: Path, route: str
) -> None:
    """Made with this host's libvirt; imported by the other's: there, or from afar over ssh."""
    file = tmp_path / "a.golden"
    name = exported(blank_image, file, route)
    shared = lab.armvm("golden", "import", file)
    if route == memory.COW:  # its memory cannot be shared from afar
        assert "remote connection" in shared.failed(5).err
        lab.armvm_there("golden", "import", file).ok()
        lab.armvm_there("golden", "verify", name).ok()
    else:
        shared.ok()
        lab.armvm("golden", "verify", name).ok()
    facts_there = lab.armvm_there("golden", "show", name, "--json").ok().json
    assert facts_there["fits"] is True
    assert facts_there["imported"].startswith("sha256:")
    lab.armvm("golden", "delete", name, "--yes").ok()
    assert name not in lab.host_runs("virsh", "list", "--all").stdout
