"""The distributions whose images armvm can build: packages, archives and keys.

Debian's was built and booted. Ubuntu's follows the documentation of its packages and archive:
names of packages and files from Ubuntu 24.04 (shim-signed 1.58, grub-efi-arm64-signed 1.202),
suites and components of ports.ubuntu.com, where Ubuntu keeps arm64.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class Kernel(enum.Enum):
    """The kernel of an image."""

    CLOUD = "cloud"  #: only drivers of virtual machines
    GENERIC = "generic"  #: all drivers


@dataclass(frozen=True, kw_only=True)
class Distro:
    """Properties of a distribution that a build needs.

    ``packages`` are in every image, besides its kernel. ``keyring`` is the file that verifies
    the archive, from the package ``keyring_package``. ``mirror`` is the default
    archive; None leaves it to mmdebstrap, which knows Debian's with all its
    suites. ``pockets`` are appended to the suite's name, ``scripts`` is the directory in
    ``hooks/`` with this distribution's own scripts. With ``own_keyring``, another file may
    verify the archive during the build. ``lookup`` is the web site for package searches.
    ``flavours`` are the ends of its kernels' versions: ``6.1.0-13-cloud-arm64``.
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
    flavours: tuple[str, ...] = ()


def _packages(keyring: str) -> tuple[str, ...]:
    """Return the packages of every image: it boots by UEFI with or without Secure Boot, uses
    cloud-init and ssh, and has common command-line tools.
    """
    return (
        # boot
        *("initramfs-tools", "zstd", "systemd-sysv", "udev", "kmod"),
        *("grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed", "e2fsprogs", "mount", "init"),
        # cloud-init and its tools; netplan with networkd and resolved for the network
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
    flavours=("arm64",),
)

UBUNTU = Distro(
    name="ubuntu",
    title="Ubuntu",
    packages=_packages("ubuntu-keyring"),
    # The first is the second without the drivers of linux-modules-extra, as in cloud images.
    kernels={Kernel.CLOUD: "linux-image-virtual", Kernel.GENERIC: "linux-image-generic"},
    keyring=Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
    keyring_package="ubuntu-keyring",
    mirror="http://ports.ubuntu.com/ubuntu-ports",
    # qemu-guest-agent is in universe.
    components=("main", "universe"),
    pockets=("", "-updates", "-security"),
    scripts="ubuntu",
    # Debian 12 does not package these keys.
    own_keyring=True,
    lookup="https://packages.ubuntu.com/",
    flavours=("generic", "virtual"),
)

DISTROS: Mapping[str, Distro] = {one.name: one for one in (DEBIAN, UBUNTU)}


def sources(
    distro: Distro, suite: str, mirror: str | None, keyring: Path | None = None
) -> list[str]:
    """Return the lines for sources.list, or URLs, for mmdebstrap's arguments after its target.

    Empty: mmdebstrap's default. A line names the *keyring* (default: the distribution's own) that
    must verify the archive.
    """
    if not distro.own_keyring:
        return [mirror] if mirror else []
    archive = mirror or distro.mirror
    options = f"arch=arm64 signed-by={keyring or distro.keyring}"
    components = " ".join(distro.components)
    return [f"deb [{options}] {archive} {suite}{one} {components}" for one in distro.pockets]


def archives(distro: Distro, suite: str, mirror: str | None) -> list[str]:
    """Return mmdebstrap's archives for any architecture; empty means Debian's default.

    They name no keyring, unlike sources(): the root file system's own keys apply.
    """
    if distro.mirror is None:
        return [mirror] if mirror else []
    components = " ".join(distro.components)
    return [f"deb {mirror or distro.mirror} {suite}{one} {components}" for one in distro.pockets]
