"""Change the root file system of a board's image so that it boots as a machine.

The board's packages, users and settings stay. Removed or changed is what belongs to the board's
hardware or to its first boot on a card: the kernel, the mounts of the card, and the services
that grow a partition, make host keys or ask for a user, which cloud-init does here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from armvm.base.progress import Progress
from armvm.provision.rootfs import bootable
from armvm.settings.system import OperatingSystem
from armvm.usermode.rootfs import tree
from armvm.usermode.rootfs.build import board_script

#: Services of a first boot on a card, by the distribution that has them. All would do again what
#: cloud-init does; those that grow a partition do not know this disk, those that make host keys
#: replace cloud-init's, and those that ask for a user wait for an answer on the console.
FIRST_BOOT = (
    # Raspberry Pi OS
    *("resize2fs_once", "regenerate_ssh_host_keys", "userconfig", "rpi-resize"),
    # Armbian
    *("armbian-resize-filesystem", "armbian-firstrun", "armbian-firstrun-config"),
    # Debian's images for the Raspberry Pi
    *("rpi-generate-ssh-host-keys", "rpi-resizerootfs"),
    # DietPi
    *("dietpi-fs_partition_resize", "dietpi-firstboot"),
)
_UNIT_PLACES = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")

_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_~-]{0,127}\Z")

#: fstab(5)'s names of file systems that need no disk.
_WITHOUT_DISK = frozenset(
    "none proc sysfs tmpfs devtmpfs devpts ramfs debugfs tracefs securityfs configfs cgroup "
    "cgroup2 hugetlbfs mqueue overlay bpf fusectl".split()
)
#: Limits on what is passed to the scripts as arguments: lines of fstab that are kept, characters of
#: a line, and kernels.
_MOST_LINES = 200
_LONGEST_LINE = 500
_MOST_KERNELS = 100


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is changed: versions of *kernels*, *services* to mask, mounts that are commented out."""

    kernels: tuple[str, ...]
    services: tuple[str, ...]
    fstab: str
    mounts: tuple[str, ...]


def changes(root: Path) -> Changes:
    """Return what has to change in *root*, read from outside."""
    fstab, mounts = new_fstab(tree.read(root, "etc/fstab") or b"")
    return Changes(
        kernels=tuple(_kernels(root)), services=tuple(_services(root)), fstab=fstab, mounts=mounts
    )


def make_ready(root: Path, wanted: Changes, *, title: str, progress: Progress) -> OperatingSystem:
    """Make *root* bootable with all of *wanted*; return its operating system.

    *title* names the image in messages. Raises BuildFailed and ConfigError.
    """
    with bootable.scripts(root, progress, title) as (run, phase):
        phase("preparing")
        run(board_script("before"), *wanted.kernels, network=False)
    system = bootable.make_ready(root, install=True, progress=progress, title=title)
    with bootable.scripts(root, progress, title) as (run, phase):
        phase("adapting the board's settings")
        run(board_script("after"), wanted.fstab, *wanted.services, network=False)
    return system


def new_fstab(board: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the lines to append to a machine's fstab, and the mount points left out.

    Lines that need no disk of the board stay; the others are comments with the reason.
    """
    lines, left_out = [], []
    for line in board.decode(errors="replace").splitlines()[:_MOST_LINES]:
        text = "".join(one if one.isprintable() else " " for one in line).strip()
        words = text.split()
        if not text or text.startswith("#") or len(words) < 3 or len(text) > _LONGEST_LINE:
            continue
        reason = _reason(*words[:3])
        if reason is None:
            lines.append(text)
            continue
        lines.append(f"# not mounted here, {reason}: {text}")
        if words[1] != "/":
            left_out.append(words[1])
    head = "# From the board's fstab:"
    return "".join(f"{line}\n" for line in ([head, *lines] if lines else [])), tuple(left_out)


def _reason(source: str, target: str, kind: str) -> str | None:
    """Return why a line of fstab does not apply to a machine; None if it does."""
    if target == "/":
        return "the root is on the machine's own disk"
    if kind in _WITHOUT_DISK or source in _WITHOUT_DISK:
        return None
    if source.startswith("/") and not source.startswith(("//", "/dev/")):
        return None  # a swap file, or a directory to bind
    if source.startswith("//") or ":/" in source:
        return "it is on the network"
    return "it is on the board's card"


def _kernels(root: Path) -> list[str]:
    """Return the versions of kernels that are not the distribution's for virtual machines."""
    own = bootable.distro_of(root).flavours
    found = set()
    for place in ("lib/modules", "usr/lib/modules"):
        directory = tree.find(root, place)
        if directory is not None and directory.is_dir():
            found |= {one.name for one in directory.iterdir()}
    boot = tree.find(root, "boot")
    if boot is not None and boot.is_dir():
        found |= {one.name.removeprefix("vmlinuz-") for one in boot.glob("vmlinuz-*")}
    names = sorted(filter(_RELEASE.match, found))
    ends = tuple(f"-{flavour}" for flavour in own)
    return [one for one in names if not one.endswith(ends)][:_MOST_KERNELS]


def _services(root: Path) -> list[str]:
    found = []
    for name in FIRST_BOOT:
        places = [*(f"{place}/{name}.service" for place in _UNIT_PLACES), f"etc/init.d/{name}"]
        if any(tree.find(root, place) for place in places):
            found.append(f"{name}.service")
    return found
