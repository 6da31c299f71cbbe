"""Can a root file system boot as a machine of armvm's, and what it lacks where it cannot."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import BuildFailed, ConfigError
from armvm.base.progress import Progress
from armvm.images import disk
from armvm.provision.rootfs import enter
from armvm.settings.system import OperatingSystem
from armvm.usermode.rootfs import build, build_log, tree
from armvm.usermode.rootfs.distros import DISTROS, Distro, Kernel

#: What a machine needs of a root file system besides a kernel: it boots by UEFI, cloud-init
#: configures it, and it is logged in to. What else `image build` installs is for people.
NEEDED = (
    *("initramfs-tools", "zstd", "systemd-sysv", "udev", "kmod"),
    *("grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed", "e2fsprogs"),
    *("cloud-init", "cloud-guest-utils", "fdisk", "netplan.io", "systemd-resolved"),
    *("dbus", "libpam-systemd", "iproute2", "openssh-server", "sudo", "python3"),
)

#: The most that is read of dpkg's list of packages, in bytes.
MAX_STATUS = 64 << 20

#: A machine-id that is none yet (machine-id(5)); another one would be every machine's.
BLANK = (b"", b"uninitialized")

#: Runs in the root file system by its own shell, with the packages to install as arguments. It
#: has the environment that the scripts in usermode/rootfs/hooks expect, but is inside already.
_BEGIN = """\
set -eu
root=
guest() { "$@"; }
phase() { echo "armvm-phase: $*"; }
chroot() { shift; if command -v "$1" >/dev/null; then "$@"; fi; }
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
mkdir -p /etc/systemd/system
"""
#: The settings are there while packages are configured, so that the initramfs is a small one; but
#: no grub.cfg, which would have the kernel's package call update-grub, in vain without a disk.
_INSTALL = """
rm -f /boot/grub/grub.cfg
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
phase fetching packages
apt-get -q update
apt-get -q -y --no-install-recommends -o Acquire::Retries=3 -o APT::Sandbox::User=root \\
    -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io install "$@"
apt-get -q clean
"""
_FINISH = """
if [ -e /lib/systemd/systemd-resolved ] && [ ! -L /etc/resolv.conf ]; then
    ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
fi
for kernel in /lib/modules/*; do
    [ -e "/boot/initrd.img-${kernel##*/}" ] || update-initramfs -c -k "${kernel##*/}"
done
"""


#: How apt's and dpkg's lines begin that tell how far they are, and what is told.
_STEPS = {
    "Unpacking ": "unpacking packages",
    "Setting up ": "configuring packages",
    "update-initramfs: Generating": "generating the initramfs",
}


@dataclass(frozen=True, kw_only=True)
class Lacks:
    """What a root file system lacks: *packages* to be installed, and *settings*, in words."""

    packages: tuple[str, ...]
    settings: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.packages or self.settings)


def distro_of(root: Path) -> Distro:
    """Return the distribution of a root file system. Raises ConfigError for one not known here."""
    name = tree.os_release(root).get("ID", "")
    if name not in DISTROS:
        known = " and ".join(one.title for one in DISTROS.values())
        raise ConfigError(
            f"{root} is no root file system of {known}, as its /etc/os-release says",
            hint="images of others come from 'armvm image pull'",
        )
    return DISTROS[name]


def lacks(root: Path) -> Lacks:
    """Return what *root* lacks to boot. Raises ConfigError for another distribution."""
    distro = distro_of(root)
    there = installed(root)
    missing = [one for one in NEEDED if one not in there]
    if not there & set(distro.kernels.values()) and not _kernels(root):
        missing = [distro.kernels[Kernel.CLOUD], *missing]
    settings = []
    for name in ("vmlinuz", "initrd.img", *disk.BOOT_FILES[distro.name].files):
        if tree.find(root, name) is None:
            settings.append(f"there is no /{name}")
    for name in ("etc/fstab", "boot/grub/grub.cfg"):
        if disk.ROOT_LABEL.encode() not in (tree.read(root, name) or b""):
            settings.append(f"/{name} does not name the file system {disk.ROOT_LABEL}")
    if (tree.read(root, "etc/machine-id", 64) or b"").strip() not in BLANK:
        settings.append("/etc/machine-id is set, so that all machines would be one")
    return Lacks(packages=tuple(missing), settings=tuple(settings))


def installed(root: Path) -> set[str]:
    """Return the names of the packages that dpkg has installed in *root*."""
    found = set()
    name = ""
    for line in (tree.read(root, "var/lib/dpkg/status", MAX_STATUS) or b"").splitlines():
        if line.startswith(b"Package: "):
            name = line[9:].decode(errors="replace").strip()
        elif line == b"Status: install ok installed":
            found.add(name)
    return found


def _kernels(root: Path) -> bool:
    """Tell whether there is a kernel of any kind."""
    boot = tree.find(root, "boot")
    return boot is not None and boot.is_dir() and any(boot.glob("vmlinuz-*"))


def make_ready(root: Path, *, install: bool, progress: Progress) -> OperatingSystem:
    """See to it that *root* can boot; return the system that it holds.

    With *install*, what it lacks is installed and set up. Raises ConfigError that names it
    otherwise, BuildFailed with the end of the log when installing fails.
    """
    missing = lacks(root)
    if missing and install:
        _install(root, missing, progress)
        missing = lacks(root)
    if missing:
        raise cannot_boot(root, missing)
    release = tree.os_release(root)
    return OperatingSystem(distro=release.get("ID", ""), version=release.get("VERSION_ID", ""))


def cannot_boot(root: Path, missing: Lacks) -> ConfigError:
    """Return the error that says what *root* lacks."""
    told = [f"not installed: {' '.join(missing.packages)}"] if missing.packages else []
    return ConfigError(
        f"{root} cannot boot yet",
        detail="\n".join([*told, *missing.settings]),
        hint="--install-missing installs what is missing, and sets it up (packages alone: armvm "
        f"rootfs enter {root} -- apt-get install --no-install-recommends …)",
    )


def _install(root: Path, missing: Lacks, progress: Progress) -> None:
    """Install and set up what is missing, in *root*. Raises BuildFailed."""
    settings = build.settings(distro_of(root).scripts)
    log: deque[str] = deque(maxlen=3000)
    with progress.task(f"making {root} bootable") as task:

        def on_line(line: str) -> None:
            if line.startswith(build.PHASE):
                task.update(text=line.removeprefix(build.PHASE))
            elif line.strip():
                log.append(line)
                for sign, text in _STEPS.items():
                    if line.startswith(sign):
                        task.update(text=text)

        def run(script: str, *arguments: str, network: bool) -> None:
            words = ["sh", "-c", f"{_BEGIN}{settings}{script}", "armvm", *arguments]
            done = enter.run(root, words, on_line=on_line, network=network)
            if done.returncode != 0:
                raise BuildFailed(
                    f"{root} could not be made bootable",
                    detail="\n".join(build_log.extract(list(log))),
                    hint="the lines above say why; the same command goes on where it was",
                )

        task.update(text="preparing")
        if missing.packages:
            run(_INSTALL, *missing.packages, network=True)
        task.update(text="setting it up")
        # Without the host's resolv.conf, which would hide the file that becomes a link.
        run(_FINISH, network=False)
