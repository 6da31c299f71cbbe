"""Whether a host can share directories, told before anything is stopped for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from armvm.base.errors import MissingCapability
from armvm.host.domain import shared_directories
from tests.unit.host_tools import TCG_HOST, RecordedHost

SESSION = "qemu:///session"


def described(directory: Path, binary: str, *, kind: str = "fs") -> Path:
    """Describe a program as its package does, and return the directory."""
    text = json.dumps({"description": "it", "type": kind, "binary": binary})
    (directory / "50-virtiofsd.json").write_text(text)
    return directory


def test_the_program_is_the_one_that_libvirt_finds(tmp_path: Path) -> None:
    host = RecordedHost(name=TCG_HOST)
    assert shared_directories.check(host, [described(tmp_path, "/bin/true")]) == "/bin/true"


@pytest.mark.parametrize(
    ("binary", "kind"), [("/none/virtiofsd", "fs"), ("/bin/true", "gpu"), ("/etc/passwd", "fs")]
)
def test_without_virtiofsd_its_package_is_named(tmp_path: Path, binary: str, kind: str) -> None:
    (tmp_path / "10-empty.json").touch()
    (tmp_path / "20-list.json").write_text("[]")
    with pytest.raises(MissingCapability) as caught:
        shared_directories.check(
            RecordedHost(name=TCG_HOST), [described(tmp_path, binary, kind=kind)]
        )
    assert "virtiofsd not found" in str(caught.value.detail)
    assert "apt-get install virtiofsd" in str(caught.value.hint)


def test_a_session_takes_libvirt_10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [described(tmp_path, "/bin/true")]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    with pytest.raises(MissingCapability) as caught:
        shared_directories.check(RecordedHost(name=TCG_HOST, uri=SESSION), places)
    assert "this is 9.0" in str(caught.value.detail)
    new = RecordedHost(name=TCG_HOST, uri=SESSION, version=10_000_000)
    assert shared_directories.check(new, places) == "/bin/true"


def test_a_users_own_virtiofsd_counts_in_the_users_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "qemu" / "vhost-user"
    own.mkdir(parents=True)
    described(own, "/bin/true")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    new = RecordedHost(name=TCG_HOST, uri=SESSION, version=12_000_000)
    assert shared_directories.check(new, []) == "/bin/true"
    with pytest.raises(MissingCapability):
        shared_directories.check(RecordedHost(name=TCG_HOST, version=12_000_000), [])


def test_another_hosts_programs_are_not_looked_at(tmp_path: Path) -> None:
    far = RecordedHost(name=TCG_HOST, uri="qemu+ssh://far/system", version=11_000_000)
    assert "not checked on a remote host" in shared_directories.check(far, [tmp_path])
