"""Clones with user-data of their own, and host directories in throw-away machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.boot.conftest import BOOT_TIMEOUT, reserved
from tests.boot.test_warm import identity
from tests.support import armvm, fresh_name

#: Seconds for a clone with its run of cloud-init, on a busy host.
RUN_TIMEOUT = 600

GOOD = """#cloud-config
write_files:
  - {path: /etc/armvm-marker, content: 'from the user'}
users:
  - {name: second, shell: /bin/bash}
runcmd:
  - [sh, -c, 'echo ran >> /var/armvm-runs']
"""
#: What a guest tells of a run of GOOD, in lines.
TOLD = (
    "cat /etc/armvm-marker; echo; cat /var/armvm-runs; id -un second; "
    "hostname; cat /var/lib/cloud/data/instance-id; ls /var/lib/cloud/instances; "
    "cloud-init status; systemctl --failed --no-legend"
)


LOCKED = """#cloud-config
runcmd:
  - [sh, -c, 'rm -f /home/*/.ssh/authorized_keys']
"""


def told(clone: dict[str, Any]) -> list[str]:
    """Return what TOLD gives for a clone that has run GOOD as itself."""
    instance = clone["instance_id"]
    return ["from the user", "ran", "second", clone["name"], instance, instance]


@pytest.fixture(scope="module")
def ailing(golden: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A clone whose user-data does all that it should, and then fails; its run is not over."""
    user_data = tmp_path_factory.mktemp("user-data") / "ailing"
    user_data.write_text(f"{GOOD}  - [sh, -c, 'exit 3']\n")
    name = fresh_name("armvm-clone")
    words = ("create", "--from", golden, "--name", name, "--user-data", user_data)
    try:
        yield armvm(*words, "--no-wait", "--json").ok().json
    finally:
        armvm("delete", "--yes", name)


def test_a_clone_can_be_logged_in_to_while_its_user_data_is_applied(ailing: dict[str, Any]) -> None:
    name = ailing["name"]
    assert armvm("ssh", name, "--", "hostname").ok().out.strip() == name
    error = armvm("wait", name, "--timeout", "1").failed(11)
    assert "cloud-init has not finished" in error.err


@pytest.mark.slow
def test_an_error_in_the_background_is_told_by_wait(ailing: dict[str, Any]) -> None:
    """And the clone stays, with what its user-data did before."""
    words = ("wait", ailing["name"], "--timeout", str(RUN_TIMEOUT))
    error = armvm(*words, timeout=RUN_TIMEOUT + 60).failed(12)
    assert "runcmd" in error.err or "scripts" in error.err
    out = armvm("ssh", ailing["name"], "--", TOLD).out.splitlines()
    assert out[:6] == told(ailing)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A clone whose user-data works, and what create said of it."""

    clone: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def well(saved: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A clone on armvm's network, of a golden in a save image."""
    user_data = tmp_path_factory.mktemp("user-data") / "good"
    user_data.write_text(GOOD)
    name = fresh_name("armvm-clone")
    try:
        made = armvm(
            *("create", "--from", saved, "--name", name, "--user-data", user_data),
            *("--json", "--timeout", str(RUN_TIMEOUT)),
            timeout=RUN_TIMEOUT + 60,
        ).ok()
        yield Made(clone=made.json, said=made.err)
    finally:
        armvm("delete", "--yes", name)


@pytest.mark.slow
def test_user_data_is_applied_before_create_ends(saved: str, well: Made) -> None:
    assert f"created from golden {saved}" in well.said
    assert well.clone["golden"] == saved
    assert well.clone["stages"]["ssh"] < well.clone["stages"]["ready"]
    out = armvm("ssh", well.clone["name"], "--", TOLD).ok().out.splitlines()
    assert out == [*told(well.clone), "status: done"]


@pytest.mark.slow
def test_nothing_runs_twice_when_it_boots(well: Made) -> None:
    """And it is who it was, at the address that it had."""
    name = well.clone["name"]
    before = identity(name)
    # Its file of UEFI variables began as a hole; what is set in the first run must be there later.
    variable = "/sys/firmware/efi/efivars/ArmvmTest-4e0bbd04-1a4e-4a35-8d09-2c1f4ad8e8a3"
    armvm("ssh", name, "--", f"printf '\\7\\0\\0\\0kept' | sudo tee {variable}").ok()
    armvm("stop", name, timeout=700).ok()
    armvm("start", "--wait", name, "--timeout", str(BOOT_TIMEOUT), timeout=BOOT_TIMEOUT + 60).ok()
    assert armvm("ssh", name, "--", "cat /var/armvm-runs; hostname").ok().out == f"ran\n{name}\n"
    after = identity(name)
    assert after["boot_id"] != before["boot_id"]
    kept = ("hostname", "machine_id", "instance_id", "host_key", "mac")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert after["system_uuid"] == well.clone["uuid"], "the SMBIOS has its own UUID after a start"
    assert "kept" in armvm("ssh", name, "--", f"sudo cat {variable} | tr -d '\\0'").ok().out
    shown = armvm("show", name, "--json").ok().json
    assert shown["ssh"]["host"] == well.clone["ssh"]["host"]
    assert reserved(name) == (shown["mac"], shown["ssh"]["host"])


@pytest.mark.slow
def test_a_password_is_part_of_the_identity(golden: str, name: str) -> None:
    made = armvm("create", "--from", golden, "--name", name, "--password", stdin="hunter2\n").ok()
    assert "created from golden" in made.err
    out = armvm("ssh", name, "--", "sudo getent shadow debian; cloud-init status").ok().out
    assert out.startswith("debian:$2b$")
    assert "status: done" in out


def test_user_data_too_large_for_the_golden_boots_cold(
    golden: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "large").write_text("#!/bin/sh\n#" + "€" * 900_000, encoding="utf-8")
    words = ("create", "--from", golden, "--name", name, "--user-data", tmp_path / "large")
    done = armvm(*words, "--no-wait").ok()
    assert "its seed volume holds 2.0 MiB" in done.err
    assert "falling back to a cold boot" in done.err
    assert armvm("show", name, "--json").ok().json["golden"] is None


def test_a_mounted_directory_comes_back_changed(golden: str, tmp_path: Path) -> None:
    src = tmp_path / "my src"
    (src / "sub").mkdir(parents=True)
    (src / "sub" / "input").write_text("one\n")
    (src / "kept").write_text("kept\n")
    (src / "tool").write_text("#!/bin/sh\nuname -m >> sub/input\nrm kept; pwd; exit 3\n")
    (src / "tool").chmod(0o755)
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("mine\n")
    words = ("run", "--from", golden, "--mount", src, "--mount", f"{other}:/srv/o:ro")
    done = armvm(*words, "--", "sh", "-c", "echo theirs > /srv/o/file && ./tool", timeout=180)
    assert done.code == 3, done.err
    assert done.out == "/home/debian/my src\n"
    assert (src / "sub" / "input").read_text() == "one\naarch64\n"
    assert (src / "kept").read_text() == "kept\n"
    assert (other / "file").read_text() == "mine\n"
    assert sorted(path.name for path in src.rglob("*")) == ["input", "kept", "sub", "tool"]
    assert "stay in" in done.err


def test_what_sudo_made_comes_back_and_what_cannot_is_named(golden: str, tmp_path: Path) -> None:
    src = tmp_path / "src"
    (src / ".git").mkdir(parents=True)
    (src / "left.o").write_text("")
    os.mkfifo(src / "fifo")
    script = (
        "ls -A; sudo sh -c 'umask 077; mkdir d; echo x >d/roots; truncate -s 90M holes'; "
        "touch new.o; mkfifo fifo2; sleep 100 & exit 3"
    )
    words = ("run", "--from", golden, "--mount", src, "--exclude", "*.o")
    done = armvm(*words, "--", "sh", "-c", script, timeout=180)
    assert (done.code, done.out) == (3, ""), done.err
    assert (src / "d" / "roots").read_text() == "x\n"
    assert (src / "holes").stat().st_size == 90 << 20
    assert (src / "holes").stat().st_blocks < 1000
    assert not (src / "new.o").exists()
    for words_said in ("'fifo' was not copied", "'fifo2' was not written", "--git copies it"):
        assert words_said in done.err


@pytest.mark.slow
def test_a_machine_that_refuses_armvms_key_is_not_ready(golden: str, tmp_path: Path) -> None:
    name = fresh_name("armvm-clone")
    (tmp_path / "locked").write_text(LOCKED)
    try:
        told = armvm(
            *("create", "--from", golden, "--name", name, "--user-data", tmp_path / "locked"),
            *("--timeout", str(RUN_TIMEOUT)),
            timeout=RUN_TIMEOUT + 60,
        ).failed(12)
        assert "cannot log in by ssh" in told.err
        assert "Permission denied" in told.err
        assert "authorized_keys is missing or empty" in told.err
        assert "is ready" not in told.out
    finally:
        armvm("delete", "--yes", name)
