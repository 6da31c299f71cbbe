"""The peers of the daily commands: files over a real sshd, and the end of a daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from armvm.base.errors import CommandFailed
from armvm.base.poll import until
from armvm.base.process import run
from benchmarks import docker, transfer
from benchmarks.docker import Docker
from benchmarks.login import Login, options_for, shared
from benchmarks.sweep import DOCKER_PIDFILE, end_daemon
from benchmarks.world import LeftOut, World
from tests.ssh_tools import make_key, server
from tests.support import ROOT


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(
        reference="local:debian-12",
        image=tmp_path / "image",
        clones=1,
        held=0,
        directory=tmp_path,
        prefix="armvm-bench-test",
        key=tmp_path / "key",
        cleanup=ExitStack(),
    )


@pytest.fixture
def way(world: World, tmp_path: Path) -> Iterator[Login]:
    """An open connection to an sshd that stands for a guest; its home is sshd-home."""
    public = make_key(world.key)
    with server(tmp_path) as guest:
        guest.authorized.write_text(public + "\n")
        options = (*options_for(world.key), "-o", f"Port={guest.port}")
        own = Login(options=options, target="root@127.0.0.1")
        with shared(own, tmp_path / "socket") as found:
            yield found
        # ssh answers before it removes its socket.
        assert until(lambda: not (tmp_path / "socket").exists(), timeout=10, interval=0.05)
        assert guest.log.read_text().count("Accepted publickey") == 1


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts files")


def test_the_tree_is_checked(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    transfer.make_tree(tree)
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert len(files) == transfer.FILES
    assert sum(path.stat().st_size for path in files) == transfer.FILES * transfer.SIZE
    with pytest.raises(CommandFailed, match="0 of 5000"):
        transfer.check_tree(tree)
    subprocess.run(["sh", "-c", transfer.CHANGE], cwd=tree, check=True)
    transfer.check_tree(tree)
    files[0].unlink()
    with pytest.raises(CommandFailed, match="4999 of 5000"):
        transfer.check_tree(tree)


@needs_root
@pytest.mark.parametrize("program", ["tar", "rsync"])
def test_a_tree_goes_to_a_guest_and_comes_back(way: Login, tmp_path: Path, program: str) -> None:
    if shutil.which(program, path="/usr/bin:/bin") is None:  # where the guest looks, too
        pytest.skip(f"{program} is not installed")
    commands = {"tar": transfer.with_tar, "rsync": transfer.with_rsync}[program]
    tree = tmp_path / "tree"
    transfer.make_tree(tree)
    for words in commands(way, tree):
        run(words, timeout=120)
    transfer.check_tree(tree)
    assert len(list((tmp_path / "sshd-home" / "tree").glob("*/*"))) == transfer.FILES


def test_docker_run_removes_its_container() -> None:
    found = Docker(client=("docker", "--host", "h"), options=("--platform", "linux/arm64"))
    words = found.run("uname", "-m")
    assert words[:5] == ["docker", "--host", "h", "run", "--rm"]
    assert words[-3:] == [docker.IMAGE, "uname", "-m"]
    assert words.index("--platform") < words.index(docker.IMAGE)


def test_a_daemon_that_does_not_start_is_left_out_with_its_reason(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (("dockerd", "echo no cgroups >&2; exit 1"), ("docker", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(LeftOut, match="dockerd does not start: no cgroups"), docker.docker(world):
        pass


@pytest.mark.parametrize("script", ["sleep 60; :", "trap '' TERM; while :; do sleep 0.1; done"])
def test_only_the_daemon_of_the_pidfile_is_ended(tmp_path: Path, script: str) -> None:
    pidfile = tmp_path / DOCKER_PIDFILE
    pidfile.parent.mkdir()
    end_daemon(pidfile)
    with (
        subprocess.Popen(["sh", "-c", script, str(pidfile)], start_new_session=True) as ours,
        subprocess.Popen(["sleep", "60"]) as other,
    ):
        try:
            pidfile.write_text(f"{other.pid}\n")
            end_daemon(pidfile)
            pidfile.write_text(f"{ours.pid}\n")
            time.sleep(0.5)  # until the trap is set
            end_daemon(pidfile, patience=0.5)
            assert ours.wait(timeout=10) < 0
            assert other.poll() is None
        finally:
            ours.kill()
            other.kill()


@needs_root
def test_what_a_daemon_left_mounted_is_unmounted(tmp_path: Path) -> None:
    script = (
        'mount --bind "$1" "$1" && shift && exec "$@"',
        "import sys; from pathlib import Path; from benchmarks.sweep import end_daemon; "
        "end_daemon(Path(sys.argv[1])); print(Path('/proc/self/mounts').read_text())",
    )
    data = tmp_path / "docker" / "data"
    data.mkdir(parents=True)
    words = ["unshare", "--mount", "sh", "-c", script[0], "sh", str(data)]
    words += [sys.executable, "-c", script[1], str(tmp_path / DOCKER_PIDFILE)]
    told = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert "/proc" in told
    assert str(data) not in told


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dockerd") is None, reason="requires root and dockerd"
)
def test_a_daemon_leaves_nothing_behind() -> None:
    before = docker._leaves()
    # The paths of sockets are short, and those of pytest's directories are not.
    with (
        TemporaryDirectory(dir="/var/tmp") as short,
        docker.daemon(Path(short) / DOCKER_PIDFILE.parent) as host,
    ):
        assert run(["docker", "--host", host, "version"]).returncode == 0
        pid = int((Path(short) / DOCKER_PIDFILE).read_text())
    assert not Path(f"/proc/{pid}").exists()
    assert docker._leaves() == before
