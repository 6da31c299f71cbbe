"""Create a distribution's root file system, for arm64 or armhf: to enter, not to boot.

Uses mmdebstrap, or debootstrap in its two stages if only that is installed.
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
        """QEMU's name of the architecture."""
        return {"arm64": "aarch64", "armhf": "arm"}[self.value]


class Variant(enum.Enum):
    """The packages besides those that the user names; both tools know these variants."""

    MINBASE = "minbase"  #: the essential ones, and apt
    BUILDD = "buildd"  #: and build-essential
    IMPORTANT = "important"  #: and all of priority required and important


class Tool(enum.Enum):
    """The tools that create root file systems."""

    MMDEBSTRAP = "mmdebstrap"
    DEBOOTSTRAP = "debootstrap"

    @classmethod
    def here(cls, mode: Mode, path: str | None = None) -> Tool:
        """Return the preferred installed tool, in the directories of *path*.

        Raises MissingCapability if none works in *mode*.
        """
        where = programs.search_path() if path is None else path
        if shutil.which("mmdebstrap", path=where):
            return cls.MMDEBSTRAP
        if mode is Mode.ROOT and shutil.which("debootstrap", path=where):
            return cls.DEBOOTSTRAP
        why = "" if mode is Mode.ROOT else " (debootstrap requires root)"
        raise MissingCapability(
            f"mmdebstrap, which creates root file systems, is not installed{why}",
            hint="apt-get install mmdebstrap   (or: dnf install mmdebstrap)",
        )


#: The default archive of a distribution whose entry leaves it to mmdebstrap.
DEBIAN_MIRROR = "http://deb.debian.org/debian"

#: Checks the package names before the essential packages are configured, which takes minutes;
#: mmdebstrap would look for the other packages only after that.
_LOOK_UP = (
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq -o Debug::NoLocking=1 --simulate install '
    "$ARMVM_PACKAGES >/dev/null"
)

#: Lines of mmdebstrap and debootstrap that are reported, and their words.
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
    """A root file system to create: a *distro*'s *suite*, and *packages* besides the variant's.

    *mirror* and *keyring* None mean the distribution's own; *mode* is as in build.make().
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
    """Return the command lines that create the root file system *root*, in order.

    Mounts are made in a separate namespace, so that they end with the command.
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
    # mmdebstrap finds Debian's own keys. A keyring given like this does not appear in the root's
    # sources.list: there, its own keys verify the archive.
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
    """Create the root file system in the new directory *root*; *temporary* is for the tools.

    The caller removes the leftovers of a failure. Raises NotFound for an unknown package,
    BuildFailed with the end of the log.
    """
    if order.tool is Tool.DEBOOTSTRAP and order.mode is not Mode.ROOT:
        raise ConfigError(
            "debootstrap requires root", hint="run it as root, or: apt-get install mmdebstrap"
        )
    log: deque[str] = deque(maxlen=build_log.MOST_LINES)

    def on_line(line: str) -> None:
        if line.strip():
            log.append(line)
        for sign, text in _PHASES:
            if line.startswith(sign):
                on_phase(text)

    environment = {"TMPDIR": str(temporary), "ARMVM_PACKAGES": " ".join(order.packages)}
    if order.arch is Arch.ARM64 and "QEMU_CPU" not in os.environ:
        # Without pointer authentication, which is slow to emulate; see hooks/10-unpack.sh.
        environment["QEMU_CPU"] = "cortex-a57"
    for argv in commands(root, order):
        done = process.run(argv, env=environment, check=False, on_line=on_line)
        if done.returncode != 0:
            raise build_log.failure(list(log), order.distro, order.suite, order.arch.value)
