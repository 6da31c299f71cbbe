"""The shared guest in system mode matches the request, from first login to removal."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest
from lxml import etree

from armvm.guest.identity import fingerprint
from tests.boot.conftest import Guest
from tests.support import ARMVM, armvm, environment


def test_ready_means_every_stage_was_seen_in_order(guest: Guest) -> None:
    stages = guest.created["stages"]
    assert list(stages) == [
        "started", "firmware", "kernel", "systemd", "cloud-init", "ssh", "ready",
    ]  # fmt: skip
    times = list(stages.values())
    assert times == sorted(times)
    assert guest.created["ready_seconds"] == times[-1] > 1


def test_its_image_is_what_the_catalog_names(guest: Guest) -> None:
    assert guest.said.count("the signature is not checked (verify = digest)") == 1
    shown = armvm("show", guest.name, "--json").ok().json
    image = shown["image"]
    assert (image["reference"], image["serial"]) == ("ubuntu:24.04", "20260911")
    assert (image["system"], image["verified"]) == ("ubuntu 24.04", "catalog-digest")
    assert "without a signature" in shown["provenance"]


def test_it_is_arm64(guest: Guest) -> None:
    assert guest.ssh("uname", "-m").ok().out.strip() == "aarch64"


def test_where_the_boots_time_went(guest: Guest, tmp_path: Path) -> None:
    """By the guest's account and the host's: the sums agree with what create has seen."""
    guest.ssh("systemctl is-system-running --wait")  # ready is a moment before
    svg = tmp_path / "boot.svg"
    asked = ("boot-report", guest.name)
    report = armvm(*asked, "--json", "--svg", svg, env=guest.env, timeout=700).ok().json
    assert report["sources"] == ["guest agent", "this host"]
    assert report["origin"] == "start"
    spans = {span["name"]: span for span in report["spans"]}
    order = ["firmware", "kernel", "systemd", "cloud-init local", "cloud-init final"]
    starts = [spans[name]["start"] for name in order]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert spans["kernel"]["start"] == pytest.approx(spans["firmware"]["seconds"], abs=0.01)
    stages = guest.created["stages"]
    assert abs(spans["kernel"]["start"] - stages["kernel"]) < 15, "by two clocks"
    assert spans["ready"]["start"] == pytest.approx(stages["ready"], abs=0.5)
    assert spans["ssh.service"]["kind"] == "unit"
    assert any(span["kind"] == "module" for span in report["spans"])
    assert any(span["critical"] for span in report["spans"])
    drawn = etree.parse(svg).getroot()
    assert "cloud-init local" in [element.text for element in drawn.iter()]
    text = armvm(*asked, env=guest.env, timeout=700).ok().out
    assert text.startswith(f"boot of {guest.name}: ")
    assert "█" in text


def test_hostname_user_and_sudo(guest: Guest) -> None:
    out = guest.ssh("hostname; whoami; sudo -n whoami; getent hosts $(hostname)").ok().out
    hostname, user, root, resolved = out.splitlines()
    assert (hostname, user, root) == (guest.name, "alice", "root")
    assert guest.name in resolved


def test_the_root_disk_has_grown(guest: Guest) -> None:
    size = int(guest.ssh("df --output=size -B1M / | tail -1").ok().out)
    assert size > 6000, "7 GiB were asked for"


def test_cpus_and_memory(guest: Guest) -> None:
    cpus, memory = guest.ssh("nproc; grep MemTotal /proc/meminfo").ok().out.splitlines()
    assert int(cpus) == 2
    assert 1300 < int(memory.split()[1]) // 1024 <= 1536


def test_the_host_key_is_the_one_armvm_made(guest: Guest) -> None:
    where = guest.created["ssh"]
    scanned = subprocess.run(
        ["ssh-keyscan", "-p", str(where["port"]), where["host"]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    keys = [line.split(" ", 1)[1] for line in scanned.stdout.splitlines() if line[0] != "#"]
    assert keys, "there is a host key"
    assert {key.split()[0] for key in keys} == {"ssh-ed25519"}, "no other host key was made"
    assert {fingerprint(key) for key in keys} == {guest.created["host_key"]}


def test_a_wrong_host_key_is_refused(guest: Guest, tmp_path: Path) -> None:
    """The strict check is real: with another machine's key in the record, ssh must not go in."""
    from dataclasses import replace

    from armvm.base.process import run
    from armvm.guest.identity import new_key_pair
    from armvm.host.connection import connect
    from armvm.host.domain.instance import find_domain, observe
    from armvm.provision.access.ssh import reach, ssh_command
    from armvm.provision.machine.known_hosts import write_known_host

    domain = find_domain(connect("qemu:///system"), guest.name)
    instance = observe(domain)
    other = replace(instance, record=replace(instance.record, host_key=new_key_pair("x").public))
    try:
        done = run(ssh_command(other, reach(domain, instance), ["true"], batch=True), check=False)
    finally:
        write_known_host(instance)
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr


def test_the_users_own_user_data_ran_too(guest: Guest) -> None:
    out = guest.ssh("cat /etc/armvm-marker; echo; cat /run/armvm-marker").ok().out
    assert out.split("\n")[0] == "from the user"
    assert "ran" in out


def test_cloud_init_is_content(guest: Guest) -> None:
    out = guest.ssh("cloud-init status --long; systemctl --failed --no-legend").ok().out
    assert "status: done" in out
    assert "●" not in out, "no unit has failed"


def test_exit_codes_and_streams_pass_through_ssh(guest: Guest) -> None:
    assert guest.ssh("exit 7").code == 7
    done = armvm("ssh", guest.name, "--", "cat", stdin="through and through\n")
    assert done.ok().out == "through and through\n"


def test_console_gives_a_shell_and_detaches(guest: Guest) -> None:
    console = pexpect.spawn(
        ARMVM[0],
        [*ARMVM[1:], "console", guest.name],
        env=environment(),
        encoding="utf8",
        timeout=90,
    )
    try:
        console.logfile_read = sys.stderr
        console.expect("Ctrl-]")
        time.sleep(1)
        console.send("\r")
        console.expect(r"alice@\S+:\S+\$ ")
        console.send("echo here-$((40 + 2))-$(uname -m)\r")
        console.expect("here-42-aarch64")
        console.send("\x1d")
        console.expect(pexpect.EOF)
        console.wait()
        assert console.exitstatus == 0
    finally:
        console.close(force=True)
    assert armvm("show", guest.name, "--json").ok().json["state"] == "running"


def test_console_passes_a_pipe_through(guest: Guest) -> None:
    done = armvm("console", guest.name, stdin="\necho piped-$((40 + 2))\n", timeout=60)
    assert "piped-42" in done.ok().out


def test_a_second_console_is_refused_politely(guest: Guest) -> None:
    first = pexpect.spawn(
        ARMVM[0], [*ARMVM[1:], "console", guest.name], env=environment(), timeout=30
    )
    try:
        first.expect("Ctrl-]")
        time.sleep(1)
        error = armvm("console", guest.name, stdin="\n").failed(5)
        assert "--force" in error.err
        assert armvm("console", "--force", guest.name, stdin="\n").code == 0
    finally:
        first.close(force=True)


def test_wait_on_a_ready_machine_returns_at_once(guest: Guest) -> None:
    start = time.monotonic()
    armvm("wait", guest.name).ok()
    assert time.monotonic() - start < 30


def test_list_shows_where_it_is(guest: Guest) -> None:
    found = {one["name"]: one for one in armvm("list", "--json").ok().json}
    where = guest.created["ssh"]
    assert found[guest.name]["ssh"] == f"{where['host']}:{where['port']}"


def test_a_machine_that_is_off_is_said_to_be(guest: Guest) -> None:
    armvm("stop", guest.name, timeout=700).ok()
    assert armvm("show", guest.name, "--json").ok().json["state"] == "shut off"
    armvm("ssh", guest.name, "--", "true").failed(10)


def test_delete_leaves_nothing(guest: Guest) -> None:
    from armvm.base.paths import cache_dir

    shown = armvm("show", guest.name, "--json").ok().json
    files = [Path(shown[key]) for key in ("overlay", "seed", "serial_log")]
    nvram = Path("/var/lib/libvirt/qemu/nvram")
    known = cache_dir() / "known_hosts" / shown["uuid"]
    assert all(file.exists() for file in [*files, known])
    assert list(nvram.glob(f"{guest.name}*"))

    armvm("delete", "--yes", guest.name).ok()

    assert not any(file.exists() for file in [*files, known])
    assert not list(files[0].parent.glob(f"{guest.name}*"))
    assert not list(nvram.glob(f"{guest.name}*"))
    names = subprocess.run(["virsh", "list", "--all", "--name"], capture_output=True, text=True)
    assert guest.name not in names.stdout.split()
    armvm("show", guest.name).failed(4)
    with pytest.raises(FileNotFoundError):
        known.stat()
