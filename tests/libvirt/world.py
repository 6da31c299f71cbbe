"""What these tests know of the host: commands, traces, and libvirt calls that end early."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import libvirt

from armvm.base.progress import Progress, Quiet
from armvm.host import facts
from armvm.host.storage.base_image import base_name
from armvm.images.model import Image
from armvm.provision.image import find
from armvm.provision.machine import create
from armvm.provision.machine.create import Where
from armvm.provision.machine.plan import CreatePlan
from armvm.settings.machine import Machine
from tests.support import Result, armvm, spawn

SYSTEM = "qemu:///system"
NVRAM = Path("/var/lib/libvirt/qemu/nvram")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5TrQyXHkeoYCLSgdGUqt2zXOdhA1DYl7aaWXdiTvTr test"


class Ended(BaseException):
    """What a signal becomes in tests that run a use case in this process, as in armvm.cli.main."""


def virsh(*args: str | Path, check: bool = True) -> str:
    """Run virsh and return what it prints."""
    done = subprocess.run(
        ["virsh", "--connect", SYSTEM, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, f"virsh {args}: {done.stdout}"
    return done.stdout


def until(what: Callable[[], Any], *, limit: float = 60, why: str = "it") -> Any:
    """Poll until *what* gives something true, and return that; fail after *limit* seconds."""
    end = time.monotonic() + limit
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, f"{why} did not come about in {limit:g} s"
        time.sleep(0.05)


def make_image(path: Path, *, size: int = 1 << 20) -> Path:
    """Make a qcow2 image that no other is equal to, with *size* bytes of noise in it."""
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(1 << 20)
        file.seek(0, os.SEEK_END)
        for _ in range(0, size, 1 << 20):
            file.write(secrets.token_bytes(min(size, 1 << 20)))
    command = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(path)]
    subprocess.run(command, check=True)
    raw.unlink()
    return path


@dataclass(frozen=True, kw_only=True)
class World:
    """A pool of the tests' own on the system daemon, and armvm made to use it."""

    connection: Any
    pool: str
    directory: Path

    @property
    def settings(self) -> dict[str, str]:
        """The environment that makes armvm use this daemon and pool."""
        return {"ARMVM_CONNECT": SYSTEM, "ARMVM_POOL": self.pool}

    def armvm(self, *args: str | Path, **options: Any) -> Result:
        """Run armvm to its end."""
        return armvm(*args, env={**self.settings, **options.pop("env", {})}, **options)

    def spawn(self, *args: str | Path) -> subprocess.Popen[str]:
        """Start armvm."""
        return spawn(*args, env=self.settings)

    def held(self, name: str, image: Path, *options: str | Path) -> Result:
        """Create a machine that is not started."""
        return self.armvm("create", "--name", name, "--image", image, "--no-start", *options).ok()

    def volumes(self) -> set[str]:
        """Return the names of the files in the pool's directory."""
        return {path.name for path in self.directory.iterdir()}

    def bases(self) -> set[str]:
        """Return the names of the bases in the pool."""
        return {name for name in self.volumes() if name.startswith("base-")}

    def traces(self, name: str) -> list[str]:
        """Return all that is left of a machine, wherever machines leave something."""
        found = [f"volume {volume}" for volume in self.volumes() if volume.startswith(f"{name}.")]
        found += [f"nvram {path.name}" for path in NVRAM.glob(f"{name}*")]
        if name in [domain.name() for domain in self.connection.listAllDomains(0)]:
            found.append(f"domain {name}")
        if f"name='{name}'" in virsh("net-dumpxml", "armvm", check=False):
            found.append(f"address of {name}")
        return found

    def half_bases(self, image: Path) -> list[str]:
        """Return the bases that are not this image's bytes in full."""
        whole = image.read_bytes()
        return [name for name in self.bases() if (self.directory / name).read_bytes() != whole]

    def remove_bases(self) -> None:
        """Remove the bases that no machine stands on."""
        virsh("pool-refresh", self.pool)
        for name in self.bases():
            virsh("vol-delete", "--pool", self.pool, name)

    def where(self, steps: Steps | None = None) -> Where:
        """Return where in-process use cases make machines, with each libvirt call a step."""
        connection = self.connection if steps is None else steps.watch(self.connection)
        return Where(connection=connection, facts=facts.observe(self.connection), pool=self.pool)

    def plan(self, name: str, image: Path, **options: Any) -> tuple[CreatePlan, Image]:
        """Return what `apply` takes."""
        machine = Machine(name=name, image=str(image), ssh_keys=(KEY,), **options)
        source = find.locate(str(image), Quiet())
        create.check_name(self.connection, machine.name)
        return create.make_plan(self.where(), machine, source), find.obtain(source, Quiet())

    def base_of(self, image: Path) -> Path:
        """Return where an image's base lies in the pool."""
        digest = find.obtain(find.locate(str(image), Quiet()), Quiet()).digest
        return self.directory / base_name(digest)


def apply(
    where: Where,
    planned: tuple[CreatePlan, Image],
    *,
    start: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Make a planned machine in this process."""
    return create.apply(where, *planned, start=start, progress=progress or Quiet())


@dataclass(kw_only=True)
class Steps:
    """A real connection whose calls are counted; at one of them, something happens.

    Everything reached through the connection (pools, volumes, domains, streams) is watched
    too. The *action* is run once, before call number *at* (from 1) or after it.
    """

    at: int = 0
    action: Callable[[], None] = lambda: None
    after: bool = False
    calls: list[str] = field(default_factory=list)

    #: These are answered by libvirt's client without asking the daemon.
    _LOCAL = frozenset({"name", "UUIDString", "connect", "getURI"})

    def watch(self, target: Any) -> Any:
        """Return *target* with its calls counted, if it is one of libvirt's objects."""
        if isinstance(target, list):
            return [self.watch(one) for one in target]
        return _Watched(target, self) if type(target).__module__ == "libvirt" else target

    def call(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make one call."""
        if name in self._LOCAL:
            return function(*args, **options)
        self.calls.append(name)
        now = len(self.calls) == self.at
        if now and not self.after:
            self.action()
        try:
            return self.watch(function(*args, **options))
        finally:
            if now and self.after:
                self.action()


class _Watched:
    def __init__(self, target: Any, steps: Steps) -> None:
        self._target, self._steps = target, steps

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name.startswith("_") or not callable(value):
            return value
        return lambda *args, **options: self._steps.call(name, value, *args, **options)


@dataclass(kw_only=True)
class Reporter(Quiet):
    """A progress that calls back: what it hears is also where things can be made to happen."""

    on_start: Callable[[str], None] = lambda label: None
    on_update: Callable[[str, int], None] = lambda label, done: None
    on_end: Callable[[str], None] = lambda label: None
    said: list[str] = field(default_factory=list)
    _label: str = ""

    def say(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)

    def warn(self, text: str) -> None:
        """Keep it, marked."""
        self.said.append(f"warning: {text}")

    @contextmanager
    def task(self, label: str, *, total: int | None = None) -> Iterator[Reporter]:
        """Call back at the start and the end."""
        self._label = label
        self.on_start(label)
        yield self
        self.on_end(label)

    def update(
        self, done: int | None = None, text: str | None = None, outlook: str | None = None
    ) -> None:
        """Call back with the amount done."""
        self.on_update(self._label, done or 0)


def raise_libvirt_error() -> None:
    """Fail as libvirt does when the daemon goes away."""
    error = libvirt.libvirtError("made to fail")
    error.err = (
        *(libvirt.VIR_ERR_RPC, libvirt.VIR_FROM_RPC, "made to fail", libvirt.VIR_ERR_ERROR),
        *(None, None, None, -1, -1),
    )
    raise error


def signal_myself() -> None:
    """Send this process a Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def kill_myself() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT end the block with `Ended`."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Ended

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
