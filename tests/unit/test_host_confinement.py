"""AppArmor and SELinux rules for a golden's memory, and the messages when they deny access."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import libvirt
import pytest

from armvm.base.errors import DomainError
from armvm.host.confinement import (
    allow,
    allowing,
    apparmor_confines,
    explain,
    is_allowed,
    obstacle,
    rule,
)
from armvm.host.facts import observe
from armvm.host.storage.pools import SYSTEM_POOL_PATH
from armvm.provision.inspect.doctor import denied_memory, shared_memory
from tests.unit.host_tools import RECORDED, TCG_HOST, RecordedHost, facts_of

POOL = "/nowhere/armvm"
RULES = Path("etc/apparmor.d/local/abstractions/libvirt-qemu")
APPARMOR = facts_of(TCG_HOST, security=frozenset({"apparmor", "dac"}))
SELINUX = facts_of(TCG_HOST, security=frozenset({"selinux", "dac"}))
FREE = facts_of(TCG_HOST, security=frozenset({"dac"}))


@pytest.fixture
def confined(tmp_path: Path) -> Path:
    """The root of a host whose libvirt has AppArmor confine QEMU."""
    enabled = tmp_path / "sys/module/apparmor/parameters/enabled"
    enabled.parent.mkdir(parents=True)
    enabled.write_text("Y\n")
    (tmp_path / "etc/apparmor.d/libvirt").mkdir(parents=True)
    return tmp_path


def failed(told: str) -> DomainError:
    """What a start that QEMU refused raises."""
    return DomainError("g1 cannot be started", detail=f"internal error: process exited:\n{told}")


OPEN = failed(
    "2026-11-29T07:50:00.1Z qemu-system-aarch64: can't open backing store "
    f"{POOL}/g1.memory for guest RAM: Permission denied"
)
MAP = failed("qemu-system-aarch64: unable to map backing store for guest RAM: Permission denied")


def test_where_apparmor_confines_qemu(confined: Path) -> None:
    assert apparmor_confines(confined)
    (confined / "etc/apparmor.d/libvirt").rmdir()
    assert not apparmor_confines(confined), "another libvirt: it has no profiles"
    (confined / "etc/apparmor.d/libvirt").mkdir()
    (confined / "sys/module/apparmor/parameters/enabled").write_text("N\n")
    assert not apparmor_confines(confined)


def test_a_kernel_without_apparmor(tmp_path: Path) -> None:
    (tmp_path / "etc/apparmor.d/libvirt").mkdir(parents=True)
    assert not apparmor_confines(tmp_path)


def test_the_rule_is_written_once_and_nothing_else_is_lost(confined: Path) -> None:
    path = confined / RULES
    assert not is_allowed(POOL, confined)
    allow([POOL, POOL], confined)
    assert path.read_text() == "/nowhere/armvm/*.memory rwk,\n"
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("# ours\n/srv/** rw,\n  /nowhere/armvm/*.memory rwk,")
    before = path.stat().st_mtime_ns
    allow([POOL], confined)
    assert path.stat().st_mtime_ns == before, "it was there already"
    allow(["/srv/pool", POOL], confined)
    assert path.read_text().splitlines() == [
        "# ours",
        "/srv/** rw,",
        "  /nowhere/armvm/*.memory rwk,",
        "/srv/pool/*.memory rwk,",
    ]


def test_a_rule_that_is_commented_out_is_none(confined: Path) -> None:
    (confined / RULES).parent.mkdir(parents=True)
    (confined / RULES).write_text(f"# {rule(POOL)}\n")
    assert not is_allowed(POOL, confined)


def test_what_apparmor_would_read_as_more_than_a_path_is_escaped(tmp_path: Path) -> None:
    assert rule("/srv/a[1]{b}*?") == r"/srv/a\[1\]\{b\}\*\?/*.memory rwk,"
    assert rule("/srv/my pool") == '"/srv/my pool/*.memory" rwk,'
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert rule(f"{tmp_path}/link/") == rule(f"{tmp_path}/real"), "AppArmor sees no links"


@pytest.mark.parametrize("before", [None, "/srv/** rw,\n", "/srv/** rw,"])
def test_the_command_does_what_setup_does(confined: Path, before: str | None) -> None:
    path = confined / RULES
    if before is not None:
        path.parent.mkdir(parents=True)
        path.write_text(before)
    for directory in (POOL, "/srv/it's my pool"):
        command = allowing(directory).replace("sudo ", "")
        command = command.replace("/etc/apparmor.d", shlex.quote(f"{confined}/etc/apparmor.d"))
        subprocess.run(["sh", "-ec", command], check=True, stdout=subprocess.DEVNULL)
        assert is_allowed(directory, confined)
    assert (before or "").strip() in path.read_text().splitlines()


def test_who_confines_qemu_is_read_from_libvirt() -> None:
    text = (RECORDED / f"{TCG_HOST}.capabilities.xml").read_text()

    class Confined(RecordedHost):
        def getCapabilities(self) -> str:
            model = "<secmodel><model>apparmor</model><doi>0</doi></secmodel></host>"
            return text.replace("</host>", model, 1)

    assert observe(Confined(name=TCG_HOST)).security >= {"apparmor"}
    assert "apparmor" not in observe(RecordedHost(name=TCG_HOST)).security


def test_doctor_checks_it_only_where_something_confines_qemu(confined: Path) -> None:
    assert shared_memory(POOL, FREE, confined) == []
    remote = facts_of(TCG_HOST, uri="qemu+ssh://host/system", security=APPARMOR.security)
    assert shared_memory(POOL, remote, confined) == []
    (check,) = shared_memory(POOL, APPARMOR, confined)
    assert (check.ok, check.needed, check.fix) == (False, False, allowing(POOL))
    assert "AppArmor" in check.found
    allow([POOL], confined)
    (check,) = shared_memory(POOL, APPARMOR, confined)
    assert (check.ok, check.fix) == (True, None)


def test_setup_asks_for_the_pools_in_use(confined: Path) -> None:
    def none(_uri: str) -> libvirt.virConnect:
        raise DomainError("no libvirt yet")

    assert denied_memory(none, {}, confined) == [SYSTEM_POOL_PATH]
    # libvirt's test driver has a pool of another name.
    test = libvirt.open("test:///default")
    found = denied_memory(lambda _: test, {"ARMVM_POOL": "default-pool"}, confined)
    assert found == [SYSTEM_POOL_PATH, "/default-pool"]
    allow(found, confined)
    assert denied_memory(lambda _: test, {"ARMVM_POOL": "default-pool"}, confined) == []


def test_setup_asks_for_nothing_where_apparmor_is_off(tmp_path: Path) -> None:
    assert denied_memory(lambda _: libvirt.open("test:///default"), {}, tmp_path) == []


def test_a_denial_is_named_with_its_cure(confined: Path) -> None:
    for error in (OPEN, MAP):
        cause, cure = explain(error, POOL, APPARMOR, confined)
        assert cause == "AppArmor denies QEMU access to its memory file"
        assert cure == allowing(POOL)


def test_a_denial_in_spite_of_the_rule_is_somebody_elses(confined: Path) -> None:
    allow([POOL], confined)
    for facts in (APPARMOR, FREE):
        cause, cure = explain(OPEN, POOL, facts, confined)
        assert cause == f"permission denied: QEMU cannot use its memory file in {POOL}"
        assert cure is not None
        assert "journalctl" in cure


def test_selinux_has_a_label_and_a_boolean() -> None:
    cause, cure = explain(OPEN, POOL, SELINUX)
    assert "SELinux" in cause
    assert cure == (
        f"sudo semanage fcontext -a -t svirt_image_t '{POOL}(/.*)?' && sudo restorecon -R {POOL}"
    )
    assert explain(MAP, POOL, SELINUX)[1] == "sudo setsebool -P domain_can_mmap_files 1"


def test_any_other_failure_is_told_in_full() -> None:
    error = failed("qemu-system-aarch64: cannot set up guest memory 'm': Cannot allocate memory")
    cause, cure = explain(error, POOL, APPARMOR)
    assert cause.startswith("g1 cannot be started: internal error: process exited: qemu-system")
    assert cause.endswith("Cannot allocate memory")
    assert cure is None


def test_root_labels_the_memory_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = obstacle(POOL, SELINUX)
    assert found is not None
    assert "SELinux" in found[0]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert obstacle(POOL, SELINUX) is None
