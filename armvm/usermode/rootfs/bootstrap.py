"""A plain root file system of a distribution, for arm64 or armhf: to be entered, not booted.

mmdebstrap makes it, or debootstrap in its two stages, where only that is installed.
"""

from __future__ import annotations

import enum
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.base import process, programs
from armvm.base.errors import ConfigError, MissingCapability
from armvm.usermode.rootfs import build_log
from armvm.usermode.rootfs.build import Mode
from armvm.usermode.rootfs.distros import Distro, archives


class Arch(enum.Enum):
    """Debian's name of an architecture; ``qemu`` is QEMU's."""

    ARM64 = "arm64"
    ARMHF = "armhf"

    @property
    def qemu(self) -> str:
        """What QEMU calls it."""
        return {"arm64": "aarch64", "armhf": "arm"}[self.value]


class Variant(enum.Enum):
    """Which packages there are besides those asked for; both tools know these names."""

    MINBASE = "minbase"  #: the essential ones, and apt
    BUILDD = "buildd"  #: and build-essential
    IMPORTANT = "important"  #: and all of priority required and important


class Tool(enum.Enum):
    """What makes root file systems."""

    MMDEBSTRAP = "mmdebstrap"
    DEBOOTSTRAP = "debootstrap"

    @classmethod
    def here(cls, mode: Mode, path: str | None = None) -> Tool:
        """Return the better one of those installed, in the directories of *path*.

        Raises MissingCapability where there is none that works in *mode*.
        """
        where = programs.search_path() if path is None else path
        if shutil.which("mmdebstrap", path=where):
            return cls.MMDEBSTRAP
        if mode is Mode.ROOT and shutil.which("debootstrap", path=where):
            return cls.DEBOOTSTRAP
        why = "" if mode is Mode.ROOT else " (debootstrap would need root)"
        raise MissingCapability(
            f"root file systems are made by mmdebstrap, which is not installed{why}",
            hint="apt-get install mmdebstrap   (or: dnf install mmdebstrap)",
        )


#: The usual archive of a distribution whose entry leaves it to mmdebstrap.
DEBIAN_MIRROR = "http://deb.debian.org/debian"

#: Runs before anything is configured: mmdebstrap looks for the other packages after the minutes
#: that the essential ones take.
_LOOK_UP = (
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq -o Debug::NoLocking=1 --simulate install '
    "$ARMVM_PACKAGES >/dev/null"
)

#: What is told of mmdebstrap's and debootstrap's lines, and how.
_PHASES = (
    ("I: running apt-get update", "reading package lists"),
    ("I: Retrieving ", "fetching packages"),
    ("I: downloading packages", "fetching packages"),
    ("I: Extracting ", "unpacking packages"),
    ("I: extracting archives", "unpacking packages"),
    ("I: installing essential packages", "configuring the essential packages"),
    ("I: Installing core packages", "configuring the essential packages"),
    ("I: installing remaining packages", "configuring packages"),
    ("I: Configuring ", "configuring packages"),
    ("I: cleaning package lists", "cleaning up"),
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """A root file system to be made, of a *distro*'s *suite* and *packages* besides the variant's.

    *mirror* and *keyring* None mean the distribution's own; *mode* is as in rootfs.make().
    """

    distro: Distro
    suite: str
    arch: Arch
    mode: Mode
    variant: Variant = Variant.MINBASE
    packages: Sequence[str] = ()
    mirror: str | None = None
    keyring: Path | None = None
    tool: Tool = Tool.MMDEBSTRAP


def commands(root: Path, order: Order) -> list[list[str | Path]]:
    """Return the command lines that make the root file system *root*, one after the other.

    Mounts happen in a namespace of their own: whatever ends a command takes them along.
    """
    alone = ("unshare", "--mount", "--propagation", "private") if order.mode is Mode.ROOT else ()
    make_it = _debootstrap if order.tool is Tool.DEBOOTSTRAP else _mmdebstrap
    return [[*alone, *argv] for argv in make_it(root, order)]


def _debootstrap(root: Path, order: Order) -> Iterator[list[str | Path]]:
    distro, variant = order.distro, order.variant
    yield [
        *("debootstrap", "--foreign", f"--arch={order.arch.value}"),
        *((f"--variant={variant.value}",) if variant is not Variant.IMPORTANT else ()),
        *(f"--keyring={order.keyring or distro.keyring}",),
        f"--components={','.join(distro.components)}",
        *((f"--include={','.join(order.packages)}",) if order.packages else ()),
        *(order.suite, root, order.mirror or distro.mirror or DEBIAN_MIRROR),
    ]
    yield ["chroot", root, "/debootstrap/debootstrap", "--second-stage"]


def _mmdebstrap(root: Path, order: Order) -> Iterator[list[str | Path]]:
    distro, packages = order.distro, ",".join(order.packages)
    # Debian's own keys are found by mmdebstrap. A keyring given so is not named in the root's
    # sources.list: there its own vouch for the archive.
    named = order.keyring or distro.own_keyring
    yield [
        *("mmdebstrap", f"--mode={order.mode.value}", f"--variant={order.variant.value}"),
        *(f"--arch={order.arch.value}", "--format=directory"),
        *((f"--include={packages}", f"--extract-hook={_LOOK_UP}") if packages else ()),
        *((f"--keyring={order.keyring or distro.keyring}",) if named else ()),
        *(order.suite, root),
        *archives(distro, order.suite, order.mirror),
    ]


def make(root: Path, order: Order, *, temporary: Path, on_phase: Callable[[str], None]) -> None:
    """Make the root file system in the new directory *root*; *temporary* is for the tools' files.

    What a failure leaves is the caller's to remove. Raises NotFound for a package that there is
    not, BuildFailed with the end of the log.
    """
    if order.tool is Tool.DEBOOTSTRAP and order.mode is not Mode.ROOT:
        raise ConfigError("debootstrap needs root", hint="apt-get install mmdebstrap")
    log: deque[str] = deque(maxlen=3000)

    def on_line(line: str) -> None:
        if line.strip():
            log.append(line)
        for sign, text in _PHASES:
            if line.startswith(sign):
                on_phase(text)

    environment = {"TMPDIR": str(temporary), "ARMVM_PACKAGES": " ".join(order.packages)}
    if order.arch is Arch.ARM64 and "QEMU_CPU" not in os.environ:
        # Without pointer authentication, which is slow to emulate; hooks/10-unpack.sh says more.
        environment["QEMU_CPU"] = "cortex-a57"
    for argv in commands(root, order):
        done = process.run(argv, env=environment, check=False, on_line=on_line)
        if done.returncode != 0:
            raise build_log.failure(list(log), order.distro, order.suite, order.arch.value)
