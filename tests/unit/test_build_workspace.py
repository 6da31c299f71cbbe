"""Where images are built: nothing is left there, whatever ended the build."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from armvm.base.errors import Conflict, NotFound, StorageError
from armvm.base.poll import until
from armvm.provision.image import workspace
from armvm.usermode.rootfs.build import Mode

ROOT = Path(__file__).resolve().parents[2]

#: A file system of its own on every Linux.
MEMORY = Path("/dev/shm")


def test_a_workspace_is_removed_with_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), workspace.workspace(tmp_path, Mode.ROOT) as work:
        (work / "root/etc").mkdir(parents=True)
        (work / "root/etc/passwd").touch()
        (work / "disk.qcow2.raw").touch()
        assert list(tmp_path.iterdir()) == [work]
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / f"{workspace.PREFIX}dead"
    (left / "root/usr").mkdir(parents=True)
    (left / "root/usr/file").touch()
    mine, link = tmp_path / "mine", tmp_path / f"{workspace.PREFIX}link"
    mine.mkdir()
    (mine / "file").touch()
    link.symlink_to(mine)
    with workspace.workspace(tmp_path, Mode.ROOT) as running:
        assert not left.exists()
        assert workspace.sweep(tmp_path, Mode.ROOT) == [], "one that runs is let alone"
        assert running.exists()
    assert (mine / "file").exists(), "no link is followed"


def test_a_new_workspace_is_not_taken_for_one_that_was_left(tmp_path: Path) -> None:
    sweeper = (
        "import sys; from pathlib import Path\n"
        "from armvm.provision.image.workspace import sweep\n"
        "from armvm.usermode.rootfs.build import Mode\n"
        "while True: sweep(Path(sys.argv[1]), Mode.ROOT)"
    )
    words = [sys.executable, "-c", sweeper, str(tmp_path)]
    sweepers = [subprocess.Popen(words, cwd=ROOT) for _ in range(2)]
    try:
        (tmp_path / f"{workspace.PREFIX}left").mkdir()
        until(lambda: not list(tmp_path.iterdir()), timeout=30, interval=0.01, late=TimeoutError)
        for _ in range(200):
            with workspace.workspace(tmp_path, Mode.ROOT, needed=0) as work:
                (work / "root").mkdir()
    finally:
        for one in sweepers:
            one.kill()
            one.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_builds_are_let_alone(tmp_path: Path) -> None:
    other = tmp_path / f"{workspace.PREFIX}other"
    other.mkdir()
    os.chown(other, 12345, 12345)
    assert workspace.sweep(tmp_path, Mode.ROOT) == []
    assert other.exists()


def test_too_little_room_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"only .* is free"):
        workspace.check_space(tmp_path, needed=1 << 60)


# ---- the output ----------------------------------------------------------------------------


def test_an_output_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    taken, dangling = tmp_path / "taken", tmp_path / "dangling"
    taken.touch()
    dangling.symlink_to(tmp_path / "nowhere")
    for output in (taken, dangling):
        with pytest.raises(Conflict, match="already exists"):
            workspace.check_output(output, force=False)
        workspace.check_output(output, force=True)
    with pytest.raises(Conflict, match="directory"):
        workspace.check_output(tmp_path, force=True)
    with pytest.raises(NotFound, match=r"directory .*/no not found"):
        workspace.check_output(tmp_path / "no" / "x", force=False)
    workspace.check_output(tmp_path / "new", force=False)


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="needs a second file system")
@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_image_gets_to_its_place_in_one_step(tmp_path: Path, elsewhere: bool) -> None:
    image = (MEMORY / f"armvm-test-{os.getpid()}") if elsewhere else tmp_path / "image"
    image.write_bytes(b"x" * 3_000_000)
    place = tmp_path / "place"
    place.mkdir()
    output = place / "o[1].qcow2"
    output.write_text("older")
    dead = place / ".o[1].qcow2.999999999.armvm-partial"
    alive = place / f".o[1].qcow2.{os.getppid()}.armvm-partial"
    dead.touch()
    alive.touch()
    try:
        workspace.place(image, output, mode=0o640)
    finally:
        image.unlink(missing_ok=True)
    assert output.read_bytes() == b"x" * 3_000_000
    assert stat.S_IMODE(output.stat().st_mode) == 0o640
    assert sorted(place.iterdir()) == sorted([output, alive])


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x")
    (tmp_path / "directory").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        workspace.place(image, tmp_path / "directory", mode=0o600)
