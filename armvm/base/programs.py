"""Find other programs, and name the package of a missing one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

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

#: Directory of the package armvm.
_ROOT = Path(__file__).resolve().parents[2]
#: Runs a module of armvm as a program. Arguments: _ROOT, the module's name, and its own arguments.
#: `python -m` would first look for each module in the current directory, which may have files of
#: another user. It has no quotes, which `provision.access.ssh_config` cannot pass on.
_START = (
    "import sys; sys.path[:] = filter(None, sys.path); root = sys.argv.pop(1); "
    "root in sys.path or sys.path.insert(0, root); "
    "import runpy; runpy.run_module(sys.argv.pop(1), None, __name__, True)"
)


def own(*words: str | Path, module: str = "armvm") -> list[str]:
    """Return the command that runs this armvm, or another *module* of it, from any directory."""
    return [sys.executable, "-c", _START, str(_ROOT), module, *map(str, words)]


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
