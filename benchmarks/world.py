"""The environment of a run: names, files, commands, goldens, and cleanup."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from armvm.base.errors import CommandFailed
from armvm.base.process import Completed, run
from armvm.base.programs import find
from benchmarks.sweep import PREFIX, sweep

#: Seconds for one command; a boot under emulation on a busy host may take minutes.
TIMEOUT = 900.0
#: The user in the guest, for all tools.
USER = "debian"
#: The system daemon: bridged networks and the peers need it.
URI = "qemu:///system"


class LeftOut(Exception):
    """A case cannot be measured on this host; the table shows the message."""


@dataclass(frozen=True, kw_only=True)
class Baked:
    """A golden, the seconds of its command, and the seconds until its machine began to boot.

    ``boot``: until it had booted.
    """

    name: str
    seconds: float
    begun: float
    boot: float


@dataclass(kw_only=True)
class World:
    """The settings and resources of one run. All names that it creates begin with *prefix*."""

    reference: str
    image: Path
    clones: int
    held: int
    directory: Path
    prefix: str
    key: Path
    cleanup: ExitStack
    rootfs: Path | None = None
    _count: int = 0
    _goldens: dict[str, Baked] = field(default_factory=dict)

    @property
    def armvm(self) -> str:
        """The command, as installed beside this Python."""
        return str(Path(sys.executable).with_name("armvm"))

    def name(self, kind: str) -> str:
        """Return an unused machine name."""
        self._count += 1
        return f"{self.prefix}-{kind}{self._count}"

    def run(self, *words: str | Path, timeout: float = TIMEOUT) -> Completed:
        """Run a command to its end. Raises CommandFailed."""
        return run([str(word) for word in words], timeout=timeout)

    def timed(self, *words: str | Path) -> float:
        """Run a command and return its seconds, from start to end."""
        argv = [find(str(words[0])), *words[1:]]
        start = time.perf_counter()
        self.run(*argv)
        return time.perf_counter() - start

    def virsh(self, *words: str | Path) -> str:
        """Run virsh on the system daemon and return its output."""
        return self.run("virsh", "-q", "-c", URI, *words, timeout=120).text

    @contextmanager
    def removed(self, name: str) -> Iterator[str]:
        """Remove a machine on exit, whichever tool made it, if it exists."""
        try:
            yield name
        finally:
            self.remove(name)

    def remove(self, *names: str) -> None:
        """Remove machines and their files."""
        with contextlib.suppress(CommandFailed):
            self.run(self.armvm, "delete", "--yes", *names)

    def warm_up(self) -> None:
        """Copy the image to the pool before the first measurement."""
        name = self.name("first")
        with self.removed(name):
            words = ("create", "--cold", "--no-start", "--quiet", "--image", self.reference)
            self.run(self.armvm, *words, "--name", name)

    def bake(self, network: str, *options: str) -> Baked:
        """Create a golden with the preset minimal. Raises LeftOut if armvm refuses.

        The boot begins with the first line that contains "starting", and ends with the first that
        contains "settling".
        """
        name = self.name("golden")
        words = [self.armvm, "golden", "create", name, "--preset", "minimal"]
        words += ["--image", self.reference, "--network", network, *options]
        reached: dict[str, float] = {}
        start = time.perf_counter()

        def watch(line: str) -> None:
            for stage in ("starting", "settling"):
                if f"{name}: {stage}" in line:
                    reached.setdefault(stage, time.perf_counter() - start)

        try:
            run(words, timeout=TIMEOUT, on_line=watch)
        except CommandFailed as error:
            told = " ".join((error.detail or "").removeprefix("armvm: ").split())
            if "no golden can be made here" in told:
                raise LeftOut(f"armvm golden create --network {network}: {told}") from error
            raise
        seconds = time.perf_counter() - start
        if reached.keys() != {"starting", "settling"}:
            raise CommandFailed(
                "armvm golden create did not print lines with 'starting' and 'settling'"
            )
        return Baked(
            name=name, seconds=seconds, begun=reached["starting"], boot=reached["settling"]
        )

    def golden(self, network: str) -> str:
        """Return this run's golden for a network; create it if necessary."""
        if network not in self._goldens:
            self._goldens[network] = self.bake(network)
        return self._goldens[network].name

    def has_golden(self, kind: str) -> bool:
        """Return whether the run has a golden for a network, or of another kind."""
        return kind in self._goldens

    def use_golden(self, network: str, name: str) -> None:
        """Use an existing golden for this run's clones; the run does not remove it."""
        self._goldens[network] = Baked(name=name, seconds=0.0, begun=0.0, boot=0.0)

    def keep_golden(self, kind: str, baked: Baked) -> None:
        """Use a golden for this run's clones, or remove it if the run already has one.

        *kind* is its network, or any other word.
        """
        if kind in self._goldens:
            self.run(self.armvm, "golden", "delete", "--yes", baked.name)
        else:
            self._goldens[kind] = baked

    @contextmanager
    def clone(self, name: str, *, kind: str = "user") -> Iterator[str]:
        """Create a clone of a golden with user networking; remove it on exit."""
        golden = self.golden(kind)
        with self.removed(self.name(name)) as name:
            self.run(self.armvm, "create", "--from", golden, "--name", name)
            yield name

    def root_file_system(self) -> Path:
        """Return a root file system of Debian 12; create it if necessary, which takes minutes.

        Raises LeftOut if this host cannot create it.
        """
        if self.rootfs is None:
            directory = self.directory / "rootfs"
            words = (self.armvm, "rootfs", "create", directory, "--image", "debian:12")
            try:
                self.run(*words, "--quiet", timeout=3600)
            except CommandFailed as error:
                told = " ".join((error.detail or str(error)).split())
                raise LeftOut(f"armvm rootfs create: {told}") from error
            self.rootfs = directory
        return self.rootfs


def need(*programs: tuple[str, str]) -> str | None:
    """Return a message for the first missing (program, package) pair, or None.

    Programs beside this Python count, because pip installs them there.
    """
    for program, package in programs:
        if which(program) is None:
            return f"{program} is not installed ({package})"
    return None


def which(program: str) -> str | None:
    """Return the path of a program, beside this Python or on PATH."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.exists() else shutil.which(program)


def need_root(_: World) -> str | None:
    """Return why the case requires root; None for root."""
    return None if os.geteuid() == 0 else "requires root (qemu:///system and its processes)"


def _virsh(*words: str) -> str:
    return run(["virsh", "-q", "-c", URI, *words], check=False, timeout=120).text


def _pools() -> set[str]:
    return set(_virsh("pool-list", "--all", "--name").split())


def _remove_pools(before: set[str], directories: tuple[Path, ...]) -> None:
    """Remove the pools that virt-install created for the directories of its disks."""
    for name in _pools() - before:
        if any(f"<path>{one}</path>" in _virsh("pool-dumpxml", name) for one in directories):
            _virsh("pool-destroy", name)
            _virsh("pool-undefine", name)


@contextmanager
def opened(
    *, reference: str, image: Path, clones: int, held: int, rootfs: Path | None = None
) -> Iterator[World]:
    """Yield a world for one run; at its end, remove everything with its prefix."""
    prefix = f"{PREFIX}{secrets.token_hex(2)}"
    # The system daemon's QEMU must be able to read it; /tmp may be private or in memory.
    directory = Path("/var/tmp") / prefix  # noqa: S108
    with ExitStack() as cleanup:
        directory.mkdir(mode=0o755)
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        cleanup.callback(_remove_pools, _pools(), (directory, directory.parent))
        cleanup.callback(sweep, prefix)
        key = directory / "key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
        copy = directory / "image.qcow2"
        run(["cp", "--reflink=auto", "--sparse=always", str(image), str(copy)])
        copy.chmod(0o644)
        yield World(
            reference=reference,
            image=copy,
            clones=clones,
            held=held,
            directory=directory,
            prefix=prefix,
            key=key,
            cleanup=cleanup,
            rootfs=rootfs,
        )
