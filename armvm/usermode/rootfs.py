"""A Debian arm64 root file system, made by mmdebstrap and the shell scripts in ``hooks/``.

mmdebstrap brings the package sources with their keys, a clean start, mounts, and namespaces for
ordinary users; the scripts do the rest inside its extract hook (``hooks/10-unpack.sh`` says why).
"""

from __future__ import annotations

import enum
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from armvm import process
from armvm.errors import BuildFailed
from armvm.usermode import binfmt

#: What every image has: boots by UEFI with or without Secure Boot, is configured by cloud-init,
#: is logged in to by ssh, and has what a person expects to find. No recommended packages.
PACKAGES = (
    # boot
    *("linux-image-cloud-arm64", "initramfs-tools", "zstd", "systemd-sysv", "udev", "kmod"),
    *("grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed", "e2fsprogs", "mount", "init"),
    # cloud-init and what it uses; netplan with networkd and resolved is the network
    *("cloud-init", "cloud-guest-utils", "fdisk", "netplan.io", "systemd-resolved"),
    *("systemd-timesyncd", "dbus", "libpam-systemd", "iproute2", "netbase", "qemu-guest-agent"),
    # people
    *("openssh-server", "sudo", "passwd", "login", "adduser", "apt", "debian-archive-keyring"),
    *("ca-certificates", "python3", "bash-completion", "less", "nano", "vim-tiny", "curl"),
    *("procps", "iputils-ping", "hostname", "tzdata", "xz-utils", "usr-is-merged"),
)

#: How many lines of the log a failed build shows: before and after what looks like the cause.
LINES_BEFORE, LINES_AFTER = 8, 12

#: How dpkg, apt and the scripts begin the line that matters.
CAUSES = ("dpkg: error", "E: ", "W: Failed to fetch", "Traceback", "not installed:")

#: What marks the lines with which the scripts tell how far they are.
PHASE = "armvm-phase: "


class Mode(enum.Enum):
    """How mmdebstrap becomes root in the new root file system."""

    ROOT = "root"  #: it is root
    UNSHARE = "unshare"  #: in a user namespace, with the ids of /etc/subuid

    @classmethod
    def here(cls) -> Mode:
        """Return the mode for whoever runs this process."""
        return cls.ROOT if os.geteuid() == 0 else cls.UNSHARE

    @property
    def inside(self) -> tuple[str, ...]:
        """What to put before a command that must see the files with their owners."""
        return () if self is Mode.ROOT else ("mmdebstrap", "--unshare-helper")


def scripts() -> str:
    """Return the text of the shell scripts that run in mmdebstrap's extract hook."""
    files = sorted(Path(__file__).with_name("hooks").glob("*.sh"))
    return "\n".join(file.read_text() for file in files)


def make(
    root: Path,
    *,
    suite: str,
    packages: tuple[str, ...] = PACKAGES,
    mirror: str | None = None,
    mode: Mode,
    on_phase: Callable[[str], None],
) -> None:
    """Make the root file system of Debian *suite* in the new directory *root*.

    *mirror* is a URL or a line for sources.list; None leaves the choice to mmdebstrap, which
    then adds the sources of updates and security fixes too. In mode UNSHARE the path must be
    open to the ids of the user namespace. Raises BuildFailed with the end of the log, and
    MissingCapability when a program is not there.
    """
    script = scripts()
    process.find("mmdebstrap")
    argv: list[str | Path] = [
        # mmdebstrap as root mounts in the namespace it is in: in one of its own, whatever ends
        # the build takes the mounts along.
        *(("unshare", "--mount", "--propagation", "private") if mode is Mode.ROOT else ()),
        "mmdebstrap",
        f"--mode={mode.value}",
        "--variant=extract",
        "--arch=arm64",
        "--format=directory",
        f"--extract-hook={script}",
        suite,
        root,
        *((mirror,) if mirror else ()),
    ]
    log: deque[str] = deque(maxlen=3000)
    # mmdebstrap quotes a failed hook in full.
    own_lines = set(script.splitlines())

    def on_line(line: str) -> None:
        if line.startswith(PHASE):
            on_phase(line.removeprefix(PHASE))
        elif line.strip() and line not in own_lines:
            log.append(line)

    environment = {
        "ARMVM_PACKAGES": " ".join(packages),
        "ARMVM_PYTHONS": " ".join(_pythons()),
        "ARMVM_EMULATED": "no" if binfmt.is_native() else "yes",
        # A path of the caller's that the namespace's ids may not be able to enter.
        "TMPDIR": str(root.parent),
    }
    done = process.run(argv, env=environment, check=False, on_line=on_line)
    if done.returncode != 0:
        text = "\n".join(log)
        raise BuildFailed(
            f"the root file system of Debian {suite} could not be made",
            detail="\n".join(extract(list(log))),
            hint=_hint(text),
        )


def extract(log: list[str]) -> list[str]:
    """Return the lines of a build's log that tell why it failed: around the first error."""
    cause = next((i for i, line in enumerate(log) if line.startswith(CAUSES)), None)
    if cause is None:
        return log[-LINES_BEFORE - LINES_AFTER :]
    return log[max(cause - LINES_BEFORE, 0) : cause + LINES_AFTER]


def remove(root: Path, *, mode: Mode) -> None:
    """Remove a root file system, whole or half-made; a path that is not there is well."""
    if root.exists():
        # The directory itself is in one of the caller's, where the namespace may not remove it.
        process.run([*mode.inside, "find", root, "-xdev", "-mindepth", "1", "-delete"])
        root.rmdir()


def _pythons() -> list[str]:
    """Return interpreters that may have the guest's version; the scripts ask each of them."""
    names = ["python3", *(f"python3.{minor}" for minor in range(9, 20))]
    found = [shutil.which(name, path=process.search_path()) for name in names]
    # Those of the system too, for a virtual environment or pyenv may hide them, or lie where a
    # user namespace cannot go.
    found += [shutil.which(name, path="/usr/bin") for name in names]
    return list(dict.fromkeys(path for path in [*found, sys.executable] if path))


def _hint(log: str) -> str:
    """Return what to do about a failure, judged by the log."""
    for sign, hint in (
        ("No space left on device", "make room: a build needs about 3 GiB beside its output"),
        (
            "newuidmap",
            "as an ordinary user this needs newuidmap (apt-get install uidmap) and lines for "
            "you in /etc/subuid and /etc/subgid; or build as root",
        ),
        ("unshare", "user namespaces are closed to ordinary users here: build as root"),
        (
            "Failed to fetch",
            "the package archive does not answer: check the network, or name another mirror",
        ),
        (
            "Could not resolve",
            "the package archive has no address: check the network, or name another mirror",
        ),
        ("NO_PUBKEY", "apt-get install debian-archive-keyring"),
        ("Exec format error", "the binfmt handler does not work: see armvm doctor"),
    ):
        if sign in log:
            return hint
    return "the last lines of the log above say why; building again starts from nothing"
