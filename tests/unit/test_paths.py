"""Where files are kept, and writing them whole."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from armvm.base.errors import StorageError
from armvm.base.paths import private_dir, resources, state_locked, write_atomic


def test_a_file_is_written_with_its_mode(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"secret")
    write_atomic(tmp_path / "b", b"", mode=0o644)
    assert (tmp_path / "a").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_an_old_file_is_replaced_with_the_new_mode(tmp_path: Path) -> None:
    old = tmp_path / "a"
    old.write_text("old")
    old.chmod(0o666)
    write_atomic(old, b"new")
    assert old.read_bytes() == b"new"
    assert stat.S_IMODE(old.stat().st_mode) == 0o600


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_text() == "kept"
    assert not (tmp_path / "link").is_symlink()


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "dir", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["dir"]


def test_a_private_directory_is_its_owners(tmp_path: Path) -> None:
    made = private_dir(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert private_dir(made) == made


@pytest.mark.parametrize("kind", ["templates", "cloud-init"])
def test_the_resources_are_there(kind: str) -> None:
    assert resources(kind).is_dir()
    assert list(resources(kind).iterdir())


def test_a_state_directory_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with state_locked("lock"):
        assert (tmp_path / "armvm/lock").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="file/armvm cannot be used"), state_locked("lock"):
        pass
