"""Docker on the host: an arm64 image run by user-mode emulation, with a daemon of its own."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import CommandFailed
from armvm.base.poll import until
from armvm.base.process import detach, run
from benchmarks.sweep import DOCKER_PIDFILE, end_daemon
from benchmarks.world import TIMEOUT, LeftOut, World, need, need_root

#: The image's name, and the prefix of the daemon's containerd namespaces.
IMAGE = "armvm-bench"
#: Seconds until a new daemon answers.
_START = 60.0
#: A storage driver that copies the image for each container; such figures say nothing.
_COPIES = "vfs"
#: Directories that dockerd makes outside its own, and leaves behind: (below, pattern).
_LEAVES = (
    ("/run", "containerd"),
    ("/run", "docker"),
    ("/sys/fs/cgroup", "docker"),
    ("/sys/fs/cgroup", "*/docker"),
)


def docker_problem(world: World) -> str | None:
    """Return why Docker cannot run an arm64 image here."""
    package = "apt-get install docker.io"
    missing = need(("dockerd", package), ("docker", package), ("containerd", package))
    return need_root(world) or missing or _binfmt_problem(world)


def _binfmt_problem(world: World) -> str | None:
    """Return why containers cannot run arm64 programs."""
    status = json.loads(world.run(world.armvm, "binfmt", "status", "--json").text)
    (arm64,) = (one for one in status["architectures"] if one["debian"] == "arm64")
    if arm64["native"]:
        return None
    for handler in status["handlers"]:
        if handler["name"] == arm64["handler"] and handler["enabled"] and "F" in handler["flags"]:
            return None
    return "no binfmt handler for arm64 with the flag F (armvm binfmt register)"


@dataclass(frozen=True, kw_only=True)
class Docker:
    """A running daemon: how to call its client, and the options to run the image."""

    client: tuple[str, ...]
    options: tuple[str, ...] = ()

    def run(self, *command: str, network: str = "none") -> list[str]:
        """Return the command line that runs a command in a new container, and removes it."""
        # Without a bridge; docker run is slower with one.
        words = [*self.client, "run", "--rm", "--network", network]
        return [*words, *self.options, IMAGE, *command]


@contextmanager
def docker(world: World) -> Iterator[Docker]:
    """Start dockerd, and import the image if it does not have it; end dockerd on exit.

    All its files are in the run's directory, and other daemons of this host are not used. Raises
    LeftOut if it cannot run arm64 containers.
    """
    directory = world.directory / DOCKER_PIDFILE.parent
    with daemon(directory) as host:
        client = ("docker", "--config", str(directory / "client"), "--host", host)
        driver = world.run(*client, "info", "--format", "{{.Driver}}").text.strip()
        if driver == _COPIES:
            raise LeftOut(f"docker's storage driver {driver} copies the image for each container")
        asked = [*client, "image", "inspect", "--format", "{{.Architecture}}", IMAGE]
        if run(asked, check=False, timeout=60).returncode != 0:
            _import(world, client)
        # Docker 20.10 ignores the platform at the import, and then refuses it at the run.
        arm64 = world.run(*asked).text.strip() == "arm64"
        found = Docker(client=client, options=("--platform", "linux/arm64") if arm64 else ())
        machine = world.run(*found.run("uname", "-m")).text.strip()
        if machine != "aarch64":
            raise LeftOut(f"docker run says that the machine is {machine or 'unknown'}")
        yield found


def _import(world: World, client: tuple[str, ...]) -> None:
    """Make the image from a root file system that armvm creates."""
    archive = world.directory / "rootfs.tar"
    try:
        root = world.root_file_system()
        world.run(world.armvm, "rootfs", "to-tar", root, "--output", archive, "--quiet")
        world.run(*client, "import", "--platform", "linux/arm64", archive, IMAGE)
    finally:
        archive.unlink(missing_ok=True)


@contextmanager
def daemon(directory: Path, *, enter: Sequence[str] = ()) -> Iterator[str]:
    """Start dockerd with its files in *directory*; yield the address of its socket.

    *enter* are the words that start a program in other namespaces. Raises LeftOut if it does not
    start.
    """
    directory.mkdir(exist_ok=True)
    host = f"unix://{directory / 'docker.sock'}"
    log, pidfile, settings = directory / "log", directory / "dockerd.pid", directory / "daemon.json"
    settings.write_text("{}\n")
    log.unlink(missing_ok=True)
    words: list[str | Path] = [*enter, "dockerd", "--config-file", settings, "--host", host]
    words += ["--data-root", directory / "data", "--exec-root", directory / "exec"]
    words += ["--pidfile", pidfile, "--bridge", "none", "--iptables=false", "--ip-forward=false"]
    words += ["--containerd-namespace", IMAGE, "--containerd-plugins-namespace", f"{IMAGE}-plugins"]
    before = _leaves()
    pid = detach(words, log)
    try:
        asked = ["docker", "--host", host, "version"]

        def answer() -> bool:
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise LeftOut(f"dockerd does not start: {_last_line(log)}")
            return run(asked, check=False, timeout=TIMEOUT).returncode == 0

        late = CommandFailed(f"dockerd does not answer after {_START:g} s", detail=_last_line(log))
        until(answer, timeout=_START, interval=0.2, late=lambda: late)
        yield host
    finally:
        end_daemon(pidfile, pid=pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        for place in _leaves() - before:
            _remove_empty(place)


def _leaves() -> set[Path]:
    return {path for below, name in _LEAVES for path in Path(below).glob(name)}


def _remove_empty(directory: Path) -> None:
    """Remove a directory and those in it, as far as no files are there; cgroups count as empty."""
    for place, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            Path(place).rmdir()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it printed nothing"
