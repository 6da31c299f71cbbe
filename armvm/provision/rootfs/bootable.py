"""Checks whether a root file system can boot as a machine, and installs what it lacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import BuildFailed, ConfigError
from armvm.base.progress import Progress
from armvm.images import disk
from armvm.provision.rootfs import enter
from armvm.settings.system import FAMILIES, OperatingSystem
from armvm.usermode.rootfs import build, build_log, tree
from armvm.usermode.rootfs.distros import DISTROS, Distro, Kernel

#: The packages that a machine needs in addition to a kernel: to boot with UEFI, for cloud-init, and
#: to log in. `image build` installs more, for convenience.
NEEDED = (
    *("initramfs-tools", "zstd", "systemd-sysv", "udev", "kmod"),
    *("grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed", "e2fsprogs"),
    *("cloud-init", "cloud-guest-utils", "fdisk", "netplan.io", "systemd-resolved"),
    *("dbus", "libpam-systemd", "iproute2", "openssh-server", "sudo", "python3"),
)

#: Maximum size to read of dpkg's package list, in bytes.
MAX_STATUS = 64 << 20

#: Contents of an unset machine-id(5). Machines from the same root would all share a set one.
BLANK = (b"", b"uninitialized")

#: Runs in the shell of the root file system, with the packages to install as arguments. It sets the
#: environment that the scripts in usermode/rootfs/hooks expect, and replaces their chroot.
_BEGIN = """\
set -eu
root=
guest() { "$@"; }
phase() { echo "armvm-phase: $*"; }
chroot() { shift; if command -v "$1" >/dev/null; then "$@"; fi; }
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
mkdir -p /etc/systemd/system
"""
#: The settings exist before packages are configured, so that the initramfs is small. There is no
#: grub.cfg, because the kernel package would then run update-grub, which fails without a disk.
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
newest=$(ls /boot/vmlinuz-* 2>/dev/null | sort -V | tail -n 1)
if [ ! -e /vmlinuz ] && [ -n "$newest" ]; then
    ln -sf "boot/${newest##*/}" /vmlinuz
    ln -sf "boot/initrd.img-${newest##*/vmlinuz-}" /initrd.img
fi
"""


#: Prefixes of progress lines from apt and dpkg, and the text that armvm shows for each.
STEPS = {
    "Unpacking ": "unpacking packages",
    "Setting up ": "configuring packages",
    "update-initramfs: Generating": "generating the initramfs",
}


@dataclass(frozen=True, kw_only=True)
class Lacks:
    """What a root file system lacks: *packages* to install, and *settings* as messages."""

    packages: tuple[str, ...]
    settings: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.packages or self.settings)


def distro_of(root: Path) -> Distro:
    """Return the distribution of a root file system. Raises ConfigError for an unsupported one."""
    found = distro_in(tree.os_release(root))
    if found is None:
        known = " and ".join(one.title for one in DISTROS.values())
        raise ConfigError(
            f"unsupported root file system {root}: its /etc/os-release does not name {known}",
            hint="for other distributions, use a ready image: armvm image pull REF",
        )
    return found


def distro_in(release: Mapping[str, str]) -> Distro | None:
    """Return the distribution that os-release names, or the one that it derives from."""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    return next((DISTROS[name] for name in names if name in DISTROS), None)


def lacks(root: Path) -> Lacks:
    """Return what *root* lacks to boot. Raises ConfigError for an unsupported distribution."""
    distro = distro_of(root)
    there = installed(root)
    missing = [one for one in NEEDED if one not in there]
    if not there & set(distro.kernels.values()) and not _kernels(root):
        missing = [distro.kernels[Kernel.CLOUD], *missing]
    settings = []
    for name in ("vmlinuz", "initrd.img", *disk.BOOT_FILES[distro.name].files):
        if tree.find(root, name) is None:
            settings.append(f"/{name} not found")
    for name in ("etc/fstab", "boot/grub/grub.cfg"):
        if disk.ROOT_LABEL.encode() not in (tree.read(root, name) or b""):
            settings.append(f"/{name} does not use the file system label {disk.ROOT_LABEL}")
    if (tree.read(root, "etc/machine-id", 64) or b"").strip() not in BLANK:
        settings.append("/etc/machine-id is set: all machines would share it")
    return Lacks(packages=tuple(missing), settings=tuple(settings))


def installed(root: Path) -> set[str]:
    """Return the names of the packages installed in *root*, from dpkg's list."""
    found = set()
    name = ""
    for line in (tree.read(root, "var/lib/dpkg/status", MAX_STATUS) or b"").splitlines():
        if line.startswith(b"Package: "):
            name = line[9:].decode(errors="replace").strip()
        elif line == b"Status: install ok installed":
            found.add(name)
    return found


def _kernels(root: Path) -> bool:
    """Return whether *root* has a kernel of any kind."""
    boot = tree.find(root, "boot")
    return boot is not None and boot.is_dir() and any(boot.glob("vmlinuz-*"))


def make_ready(
    root: Path, *, install: bool, progress: Progress, title: str | None = None
) -> OperatingSystem:
    """Ensure that *root* can boot; return its operating system.

    With *install*, installs and configures what it lacks; otherwise raises ConfigError with the
    list. *title* names a temporary root in messages. Raises BuildFailed with the end of the log
    if the installation fails.
    """
    missing = lacks(root)
    if missing and install:
        _install(root, missing, progress, title)
        missing = lacks(root)
    if missing:
        raise cannot_boot(root, missing)
    release = tree.os_release(root)
    name = release.get("ID", "")
    name = name if name in FAMILIES else distro_of(root).name
    return OperatingSystem(distro=name, version=release.get("VERSION_ID", ""))


def cannot_boot(root: Path, missing: Lacks) -> ConfigError:
    """Return the error that lists what *root* lacks."""
    told = [f"not installed: {' '.join(missing.packages)}"] if missing.packages else []
    return ConfigError(
        f"{root} cannot boot yet",
        detail="\n".join([*told, *missing.settings]),
        hint="install and configure what is missing: --install-missing (only packages: armvm "
        f"rootfs enter {root} -- apt-get install --no-install-recommends …)",
    )


#: Runs a script with arguments in a root file system; *network* gives it the host's resolv.conf.
Run = Callable[..., None]


def _install(root: Path, missing: Lacks, progress: Progress, title: str | None) -> None:
    """Install and configure in *root* what is missing. Raises BuildFailed."""
    settings = build.settings(distro_of(root).scripts)
    with scripts(root, progress, title) as (run, phase):
        phase("preparing")
        if missing.packages:
            run(settings + _INSTALL, *missing.packages, network=True)
        phase("configuring")
        # network=False: the host's resolv.conf would hide the file that becomes a link.
        run(settings + _FINISH, network=False)


@contextmanager
def scripts(
    root: Path, progress: Progress, title: str | None = None
) -> Iterator[tuple[Run, Callable[[str], None]]]:
    """Yield a function that runs shell scripts in *root*, and one that shows the current phase.

    The first raises BuildFailed with the end of the log if a script fails. *title* names a
    temporary root, where the same command starts again instead of continuing.
    """
    log: deque[str] = deque(maxlen=build_log.MOST_LINES)
    again = "it continues where it stopped" if title is None else "nothing was kept"
    with progress.task(f"making {title or root} bootable") as task:

        def phase(text: str) -> None:
            task.update(text=text)

        def on_line(line: str) -> None:
            if line.startswith(build.PHASE):
                phase(line.removeprefix(build.PHASE))
            elif line.strip():
                log.append(line)
                for sign, text in STEPS.items():
                    if line.startswith(sign):
                        phase(text)

        def run(script: str, *arguments: str, network: bool) -> None:
            words = ["sh", "-c", f"{_BEGIN}{script}", "armvm", *arguments]
            done = enter.run(root, words, on_line=on_line, network=network)
            if done.returncode != 0:
                raise BuildFailed(
                    f"cannot make {title or root} bootable",
                    detail="\n".join(build_log.extract(list(log))),
                    hint=f"fix the errors above, then run the same command again: {again}",
                )

        yield run, phase
