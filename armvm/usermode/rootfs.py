"""An arm64 root file system, made by mmdebstrap and the shell scripts in ``hooks/``.

mmdebstrap brings the package sources with their keys, a clean start, mounts, and namespaces for
ordinary users; the scripts do the rest inside its extract hook (``hooks/10-unpack.sh`` says why).
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from armvm import process
from armvm.errors import ArmvmError, BuildFailed, NotFound
from armvm.spec.names import shown
from armvm.usermode import binfmt
from armvm.usermode.distros import Distro, sources

#: How many lines of the log a failed build shows: before and after what looks like the cause.
LINES_BEFORE, LINES_AFTER = 8, 12

#: How dpkg, apt and the scripts begin the line that matters.
CAUSES = ("dpkg: error", "E: ", "W: Failed to fetch", "Traceback", "not installed:")

#: What apt says before it fetches; its units are powers of ten (apt-pkg/contrib/strutl.cc).
_AFTER = re.compile(
    r"After this operation, ([0-9.,]+) ([kMGT]?B) of additional disk space will be used"
)
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

#: How apt says that there is no such package: none of that name, or none that could be installed.
_UNKNOWN = (
    re.compile(r"E: Unable to locate package (\S+)"),
    re.compile(r"E: Couldn't find any package by (?:glob|regex) '(\S+)'"),
    re.compile(r"E: Package '(\S+)' has no installation candidate"),
    re.compile(r"E: Couldn't find these debs: (\S+)"),  # debootstrap
)

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


def scripts(own: str | None = None) -> str:
    """Return the text of the shell scripts that run in mmdebstrap's extract hook.

    *own* names the directory with those of one distribution alone, put among the others by name.
    """
    hooks = Path(__file__).with_name("hooks")
    files = [*hooks.glob("*.sh"), *(hooks.glob(f"{own}/*.sh") if own else ())]
    return "\n".join(file.read_text() for file in sorted(files, key=lambda file: file.name))


def settings(own: str | None = None) -> str:
    """Return the text of those of scripts() that make installed packages a cloud image."""
    hooks = Path(__file__).with_name("hooks")
    files = [*hooks.glob("4*.sh"), *(hooks.glob(f"{own}/4*.sh") if own else ())]
    return "\n".join(file.read_text() for file in sorted(files, key=lambda file: file.name))


def command(
    root: Path,
    *,
    distro: Distro,
    suite: str,
    mirror: str | None = None,
    keyring: Path | None = None,
    mode: Mode,
) -> list[str | Path]:
    """Return the command line that makes the root file system *root*; see make()."""
    return [
        # mmdebstrap as root mounts in the namespace it is in: in one of its own, whatever ends
        # the build takes the mounts along.
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
    """Make the root file system of a *distro*'s *suite* in the new directory *root*.

    *mirror* is an archive's URL; None is the usual one. Debian's usual one has its updates and
    security fixes too. *keyring* must vouch for it, the distribution's own by default. *on_size*
    is told how many bytes the packages will take, before they are fetched; what it raises ends
    the build. In mode UNSHARE the path must be open to the ids of the user namespace, as
    *temporary*, a directory for temporary files (the one around *root* by default). Raises
    NotFound for a package that there is not, BuildFailed with the end of the log, and
    MissingCapability when a program is not there.
    """
    process.find("mmdebstrap")
    argv = command(root, distro=distro, suite=suite, mirror=mirror, keyring=keyring, mode=mode)
    log: deque[str] = deque(maxlen=3000)
    # mmdebstrap quotes a failed hook in full.
    own_lines = set(scripts(distro.scripts).splitlines())

    def on_line(line: str) -> None:
        if line.startswith(PHASE):
            on_phase(line.removeprefix(PHASE))
        elif line.strip() and line not in own_lines:
            log.append(line)
            if (size := unpacked_size(line)) is not None:
                on_size(size)

    environment = {
        "ARMVM_PACKAGES": " ".join(packages),
        "ARMVM_PYTHONS": " ".join(_pythons()),
        "ARMVM_EMULATED": "no" if binfmt.is_native() else "yes",
        # The caller's is a path that the namespace's ids may not be able to enter.
        "TMPDIR": str(temporary or root.parent),
    }
    done = process.run(argv, env=environment, check=False, on_line=on_line)
    if done.returncode != 0:
        raise failure(list(log), distro, suite)


def failure(lines: list[str], distro: Distro, suite: str, arch: str = "arm64") -> ArmvmError:
    """Return the error for a root file system that could not be made, from its log's *lines*."""
    if unknown := unknown_packages(lines):
        names = ", ".join(shown(name) for name in unknown)
        return NotFound(
            f"{distro.title} {suite} has no package {names}",
            hint=f"look for it at {distro.lookup}; only {' and '.join(distro.components)} "
            f"is read, and only what there is for {arch}",
        )
    return BuildFailed(
        f"the root file system of {distro.title} {suite} could not be made",
        detail="\n".join(extract(lines)),
        hint=_hint("\n".join(lines), distro),
    )


def unpacked_size(line: str) -> int | None:
    """Return the bytes that apt says its packages will take; None for any other line."""
    found = _AFTER.match(line)
    if found is None:
        return None
    return int(float(found[1].replace(",", "")) * _UNITS[found[2]])


def unknown_packages(log: list[str]) -> list[str]:
    """Return the packages that apt, as its log says, could not find."""
    matches = (pattern.match(line) for line in log for pattern in _UNKNOWN)
    return list(dict.fromkeys(match[1] for match in matches if match))


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


def _hint(log: str, distro: Distro) -> str:
    """Return what to do about a failure, judged by the log."""
    for sign, hint in (
        ("No space left on device", "make room in the directory that the build works in"),
        (
            "newuidmap",
            "as an ordinary user this needs newuidmap (apt-get install uidmap) and lines for "
            "you in /etc/subuid and /etc/subgid; or build as root",
        ),
        ("unshare", "user namespaces are closed to ordinary users here: build as root"),
        (
            "Mirror sync in progress",
            "the package archive is being renewed: try again in some minutes, or name another one",
        ),
        (
            "Failed to fetch",
            "the package archive does not answer: check the network, or name another mirror",
        ),
        (
            "Could not resolve",
            "the package archive has no address: check the network, or name another mirror",
        ),
        (
            "NO_PUBKEY",
            f"the archive is signed by none of the keys in {distro.keyring}: is it "
            f"{distro.title}'s? A newer {distro.keyring_package} may have its key",
        ),
        (
            "does not have a Release file",
            f"the mirror has no such suite; {distro.title} keeps arm64 "
            + (f"at {distro.mirror}" if distro.mirror else "in its main archive"),
        ),
        (
            "held broken packages",
            "the packages asked for do not fit together; the log above says which",
        ),
        ("Exec format error", "the binfmt handler does not work: see armvm doctor"),
    ):
        if sign in log:
            return hint
    return "the last lines of the log above say why; building again starts from nothing"
