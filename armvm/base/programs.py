"""Find other programs, and name the package of a missing one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from armvm.base.errors import MissingCapability

#: Packages whose name differs from the program's: (Debian and Ubuntu, Fedora).
PACKAGES: Mapping[str, tuple[str, str]] = {
    "qemu-img": ("qemu-utils", "qemu-img"),
    "ssh": ("openssh-client", "openssh-clients"),
    "sfdisk": ("fdisk", "util-linux"),
    "prlimit": ("util-linux", "util-linux"),
    "mkfs.ext4": ("e2fsprogs", "e2fsprogs"),
    "mke2fs": ("e2fsprogs", "e2fsprogs"),
    "debugfs": ("e2fsprogs", "e2fsprogs"),
    "mformat": ("mtools", "mtools"),
    "mcopy": ("mtools", "mtools"),
    "mmd": ("mtools", "mtools"),
    "gpgv": ("gpgv", "gnupg2"),
    "apt-get": ("apt", "apt"),
    "dpkg-deb": ("dpkg", "dpkg"),
    "unshare": ("util-linux", "util-linux"),
    "setpriv": ("util-linux", "util-linux"),
    "bwrap": ("bubblewrap", "bubblewrap"),
    "newuidmap": ("uidmap", "shadow-utils"),
    "newgidmap": ("uidmap", "shadow-utils"),
    "docker": ("docker.io", "moby-engine"),
    **dict.fromkeys(("srun", "sbatch", "squeue", "scancel"), ("slurm-client", "slurm")),
}


def find(program: str) -> str:
    """Return the path of *program*.

    Also looks in the sbin directories, which Debian leaves out of an ordinary user's PATH.
    Raises MissingCapability, with the package to install.
    """
    path = shutil.which(program, path=search_path())
    if path is None:
        apt, dnf = PACKAGES.get(program, (program, program))
        raise MissingCapability(
            f"{program} is not installed",
            hint=f"apt-get install {apt}   (or: dnf install {dnf})",
        )
    return path


def search_path() -> str:
    """Return PATH with the sbin directories added."""
    known = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(
        [*known, *(p for p in ("/usr/local/sbin", "/usr/sbin", "/sbin") if p not in known)]
    )
