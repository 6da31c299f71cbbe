"""Clones with user-data of their own, and host directories in throw-away machines."""

from __future__ import annotations

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
BAD = """#cloud-config
runcmd:
  - [sh, -c, 'exit 3']
"""


LOCKED = """#cloud-config
runcmd:
  - [sh, -c, 'rm -f /home/*/.ssh/authorized_keys']
"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A clone whose user-data works, as create told of it, and one whose does not."""

    good: dict[str, Any]
    said: str
    bad: str


@pytest.fixture(scope="module")
def pair(golden: str, saved: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two clones whose cloud-init runs at the same time; the good one is on armvm's network."""
    directory = tmp_path_factory.mktemp("user-data")
    (directory / "good").write_text(GOOD)
    (directory / "bad").write_text(BAD)
    good, bad = fresh_name("armvm-clone"), fresh_name("armvm-clone")
    try:
        armvm(
            *("create", "--from", golden, "--name", bad, "--user-data", directory / "bad"),
            "--no-wait",
        ).ok()
        assert armvm("ssh", bad, "--", "hostname").ok().out.strip() == bad, "ssh works at once"
        error = armvm("wait", bad, "--timeout", "1").failed(11)
        assert "cloud-init has not finished" in error.err
        made = armvm(
            *("create", "--from", saved, "--name", good, "--user-data", directory / "good"),
            *("--json", "--timeout", str(RUN_TIMEOUT)),
            timeout=RUN_TIMEOUT + 60,
        ).ok()
        yield Pair(good=made.json, said=made.err, bad=bad)
    finally:
        armvm("delete", "--yes", good)
        armvm("delete", "--yes", bad)


def test_user_data_is_applied_before_create_ends(saved: str, pair: Pair) -> None:
    assert f"made from the golden {saved}" in pair.said
    assert pair.good["golden"] == saved
    assert pair.good["stages"]["ssh"] < pair.good["stages"]["ready"]
    command = (
        "cat /etc/armvm-marker; echo; cat /var/armvm-runs; id -un second; cloud-init status; "
        "hostname; cat /var/lib/cloud/data/instance-id; ls /var/lib/cloud/instances; "
        "systemctl --failed --no-legend"
    )
    out = armvm("ssh", pair.good["name"], "--", command).ok().out.split("\n")
    instance = pair.good["instance_id"]
    assert out == [
        *("from the user", "ran", "second", "status: done"),
        *(pair.good["name"], instance, instance, ""),
    ]


def test_an_error_in_the_background_is_told_by_wait(pair: Pair) -> None:
    error = armvm("wait", pair.bad, "--timeout", str(RUN_TIMEOUT), timeout=RUN_TIMEOUT + 60).failed(
        12
    )
    assert "runcmd" in error.err or "scripts" in error.err
    assert armvm("ssh", pair.bad, "--", "hostname").ok().out.strip() == pair.bad, "it stays"


@pytest.mark.slow
def test_nothing_runs_twice_when_it_boots(pair: Pair) -> None:
    """And it is who it was, at the address that it had."""
    name = pair.good["name"]
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
    assert after["system_uuid"] == pair.good["uuid"], "the SMBIOS has its own UUID after a start"
    assert "kept" in armvm("ssh", name, "--", f"sudo cat {variable} | tr -d '\\0'").ok().out
    shown = armvm("show", name, "--json").ok().json
    assert shown["ssh"]["host"] == pair.good["ssh"]["host"]
    assert reserved(name) == (shown["mac"], shown["ssh"]["host"])


def test_a_password_is_part_of_the_identity(golden: str, name: str) -> None:
    made = armvm("create", "--from", golden, "--name", name, "--password", stdin="hunter2\n").ok()
    assert "made from the golden" in made.err
    out = armvm("ssh", name, "--", "sudo getent shadow debian; cloud-init status").ok().out
    assert out.startswith("debian:$2b$")
    assert "status: done" in out


def test_user_data_too_large_for_the_golden_boots_cold(
    golden: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "large").write_text("#!/bin/sh\n#" + "€" * 900_000, encoding="utf-8")
    words = ("create", "--from", golden, "--name", name, "--user-data", tmp_path / "large")
    done = armvm(*words, "--no-wait").ok()
    assert "it has room for a seed of 2.0 MiB" in done.err
    assert "booting cold" in done.err
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
