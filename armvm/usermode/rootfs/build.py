"""Create an arm64 root file system with mmdebstrap and the shell scripts in ``hooks/``.

mmdebstrap provides the package sources with their keys, a clean start, mounts, and namespaces for
ordinary users; the scripts do the rest in its extract hook (``hooks/10-unpack.sh`` says why).
"""

from __future__ import annotations

import enum
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from armvm.base import process, programs
from armvm.usermode.binfmt import aarch64
from armvm.usermode.rootfs import build_log
from armvm.usermode.rootfs.distros import Distro, sources

#: The prefix of the scripts' progress lines.
PHASE = "armvm-phase: "


class Mode(enum.Enum):
    """How mmdebstrap becomes root in the new root file system."""

    ROOT = "root"  #: run as root
    UNSHARE = "unshare"  #: in a user namespace, with the ids of /etc/subuid

    @classmethod
    def here(cls) -> Mode:
        """Return the mode for the user of this process."""
        return cls.ROOT if os.geteuid() == 0 else cls.UNSHARE

    @property
    def inside(self) -> tuple[str, ...]:
        """The command prefix for commands that must see the files with their owners."""
        return () if self is Mode.ROOT else ("mmdebstrap", "--unshare-helper")


def scripts(own: str | None = None) -> str:
    """Return the text of the shell scripts for mmdebstrap's extract hook.

    *own* is the directory with a distribution's own scripts, sorted among the others by name.
    """
    hooks = Path(__file__).with_name("hooks")
    files = [*hooks.glob("*.sh"), *(hooks.glob(f"{own}/*.sh") if own else ())]
    return "\n".join(file.read_text() for file in sorted(files, key=lambda file: file.name))


def settings(own: str | None = None) -> str:
    """Return the scripts that turn the installed packages into a cloud image."""
    hooks = Path(__file__).with_name("hooks")
    files = [*hooks.glob("4*.sh"), *(hooks.glob(f"{own}/4*.sh") if own else ())]
    return "\n".join(file.read_text() for file in sorted(files, key=lambda file: file.name))


def board_script(name: str) -> str:
    """Return a script that changes a board's root file system: ``before`` or ``after``."""
    return Path(__file__).with_name("hooks").joinpath("board", f"{name}.sh").read_text()


def command(
    root: Path,
    *,
    distro: Distro,
    suite: str,
    mirror: str | None = None,
    keyring: Path | None = None,
    mode: Mode,
) -> list[str | Path]:
    """Return the command line that creates the root file system *root*; see make()."""
    return [
        # As root, mmdebstrap mounts in the current namespace: in a separate one, the mounts end
        # with the build, however that ends.
        *(("unshare", "--mount", "--propagation", "private") if mode is Mode.ROOT else ()),
        "mmdebstrap",
        f"--mode={mode.value}",
        "--variant=extract",
        "--arch=arm64",
        "--format=directory",
        f"--extract-hook={scripts(distro.scripts)}",
        suite,
        root,
        *sources(distro, suite, mirror, keyring),
    ]


def make(
    root: Path,
    *,
    distro: Distro,
    suite: str,
    packages: tuple[str, ...],
    mirror: str | None = None,
    keyring: Path | None = None,
    mode: Mode,
    temporary: Path | None = None,
    on_phase: Callable[[str], None],
    on_size: Callable[[int], None],
) -> None:
    """Create the root file system of a *distro*'s *suite* in the new directory *root*.

    *mirror* is an archive's URL, or None for the default. Debian's default includes updates and
    security fixes. *keyring* must verify the archive (default: the distribution's own). *on_size*
    is called with the number of bytes that the packages will take, before the download; an
    exception from it ends the build. In mode UNSHARE, the ids of the user namespace must have
    access to *root* and to *temporary*, a directory for temporary files (default: the parent of
    *root*). Raises NotFound for an unknown package, BuildFailed with the end of the log, and
    MissingCapability if a program is not installed.
    """
    programs.find("mmdebstrap")
    argv = command(root, distro=distro, suite=suite, mirror=mirror, keyring=keyring, mode=mode)
    log: deque[str] = deque(maxlen=build_log.MOST_LINES)
    # mmdebstrap prints a failed hook in full.
    own_lines = set(scripts(distro.scripts).splitlines())

    def on_line(line: str) -> None:
        if line.startswith(PHASE):
            on_phase(line.removeprefix(PHASE))
        elif line.strip() and line not in own_lines:
            log.append(line)
            if (size := build_log.unpacked_size(line)) is not None:
                on_size(size)

    environment = {
        "ARMVM_PACKAGES": " ".join(packages),
        "ARMVM_PYTHONS": " ".join(_pythons()),
        "ARMVM_EMULATED": "no" if aarch64.is_native() else "yes",
        # The caller's TMPDIR may be inaccessible to the namespace's ids.
        "TMPDIR": str(temporary or root.parent),
    }
    done = process.run(argv, env=environment, check=False, on_line=on_line)
    if done.returncode != 0:
        raise build_log.failure(list(log), distro, suite)


def remove(root: Path, *, mode: Mode) -> None:
    """Remove a complete or partial root file system; a missing path is not an error."""
    if root.exists():
        # The directory itself is in the caller's, where the namespace may not remove it.
        process.run([*mode.inside, "find", root, "-xdev", "-mindepth", "1", "-delete"])
        root.rmdir()


def _pythons() -> list[str]:
    """Return interpreters that may have the guest's version; the scripts try each of them."""
    names = ["python3", *(f"python3.{minor}" for minor in range(9, 20))]
    found = [shutil.which(name, path=programs.search_path()) for name in names]
    # The system's too: a virtual environment or pyenv may hide them, or be inaccessible to a user
    # namespace.
    found += [shutil.which(name, path="/usr/bin") for name in names]
    return list(dict.fromkeys(path for path in [*found, sys.executable] if path))
