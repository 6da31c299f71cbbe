"""The distributions whose images can be built: their packages, archives and keys, as data.

Debian's was built and booted. Ubuntu's is what its packages and archive are documented to be:
names of packages and files from Ubuntu 24.04 (shim-signed 1.58, grub-efi-arm64-signed 1.202),
suites and components of ports.ubuntu.com, where Ubuntu keeps arm64.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class Kernel(enum.Enum):
    """Which of a distribution's kernels an image has."""

    CLOUD = "cloud"  #: drivers of virtual machines only
    GENERIC = "generic"  #: all drivers


@dataclass(frozen=True, kw_only=True)
class Distro:
    """What building an image of a distribution needs to know.

    ``packages`` are what every image has besides its kernel. ``keyring`` is the file that
    vouches for the archive, brought by the package ``keyring_package``. ``mirror`` is the archive
    used where none is named; None leaves it to mmdebstrap, which knows Debian's with all its
    suites. ``pockets`` are appended to the suite's name, ``scripts`` name the directory in
    ``hooks/`` with what is this distribution's alone. With ``own_keyring``, another file may
    vouch for the archive while it is built from. ``lookup`` is where people look for packages.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    kernels: Mapping[Kernel, str]
    keyring: Path
    keyring_package: str
    lookup: str
    mirror: str | None = None
    components: tuple[str, ...] = ("main",)
    pockets: tuple[str, ...] = ("",)
    scripts: str | None = None
    own_keyring: bool = False


def _packages(keyring: str) -> tuple[str, ...]:
    """Return what every image has: boots by UEFI with or without Secure Boot, is configured by
    cloud-init, is logged in to by ssh, and has what a person expects to find.
    """
    return (
        # boot
        *("initramfs-tools", "zstd", "systemd-sysv", "udev", "kmod"),
        *("grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed", "e2fsprogs", "mount", "init"),
        # cloud-init and what it uses; netplan with networkd and resolved is the network
        *("cloud-init", "cloud-guest-utils", "fdisk", "netplan.io", "systemd-resolved"),
        *("systemd-timesyncd", "dbus", "libpam-systemd", "iproute2", "netbase", "qemu-guest-agent"),
        # people
        *("openssh-server", "rsync", "sudo", "passwd", "login", "adduser", "apt", keyring),
        *("ca-certificates", "python3", "bash-completion", "less", "nano", "vim-tiny", "curl"),
        *("procps", "iputils-ping", "hostname", "tzdata", "xz-utils", "usr-is-merged"),
    )


DEBIAN = Distro(
    name="debian",
    title="Debian",
    packages=_packages("debian-archive-keyring"),
    kernels={Kernel.CLOUD: "linux-image-cloud-arm64", Kernel.GENERIC: "linux-image-arm64"},
    keyring=Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    keyring_package="debian-archive-keyring",
    lookup="https://packages.debian.org/",
)

UBUNTU = Distro(
    name="ubuntu",
    title="Ubuntu",
    packages=_packages("ubuntu-keyring"),
    # The first is the second without the drivers of linux-modules-extra; its cloud images' own.
    kernels={Kernel.CLOUD: "linux-image-virtual", Kernel.GENERIC: "linux-image-generic"},
    keyring=Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
    keyring_package="ubuntu-keyring",
    mirror="http://ports.ubuntu.com/ubuntu-ports",
    # qemu-guest-agent is in universe.
    components=("main", "universe"),
    pockets=("", "-updates", "-security"),
    scripts="ubuntu",
    # Debian 12 has no package with these keys.
    own_keyring=True,
    lookup="https://packages.ubuntu.com/",
)

DISTROS: Mapping[str, Distro] = {one.name: one for one in (DEBIAN, UBUNTU)}


def sources(
    distro: Distro, suite: str, mirror: str | None, keyring: Path | None = None
) -> list[str]:
    """Return the lines for sources.list, or URLs, that mmdebstrap takes after its target.

    Nothing leaves the choice to mmdebstrap. A line names the *keyring* (the distribution's own
    by default) that must vouch for the archive.
    """
    if not distro.own_keyring:
        return [mirror] if mirror else []
    archive = mirror or distro.mirror
    options = f"arch=arm64 signed-by={keyring or distro.keyring}"
    components = " ".join(distro.components)
    return [f"deb [{options}] {archive} {suite}{one} {components}" for one in distro.pockets]


def archives(distro: Distro, suite: str, mirror: str | None) -> list[str]:
    """Return mmdebstrap's archives for any architecture; none stands for Debian's usual one.

    They name no keyring, unlike sources(): the root file system's own is meant.
    """
    if distro.mirror is None:
        return [mirror] if mirror else []
    components = " ".join(distro.components)
    return [f"deb {mirror or distro.mirror} {suite}{one} {components}" for one in distro.pockets]
