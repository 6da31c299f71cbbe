"""What the log of a root file system's making tells: sizes, unknown packages, why it failed."""

from __future__ import annotations

import re

from armvm.base.errors import ArmvmError, BuildFailed, NotFound
from armvm.settings.names import shown
from armvm.usermode.rootfs.distros import Distro

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


def _hint(log: str, distro: Distro) -> str:
    """Return what to do about a failure, judged by the log."""
    unsigned = (
        f"the archive is signed by none of the keys in {distro.keyring}: is it "
        f"{distro.title}'s? A newer {distro.keyring_package} may have its key"
    )
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
        # Before "Failed to fetch", which apt says of it too: gpgv's words, and sqv's (apt 3).
        ("NO_PUBKEY", unsigned),
        ("Missing key", unsigned),
        (
            "Failed to fetch",
            "the package archive does not answer: check the network, or name another mirror",
        ),
        (
            "Could not resolve",
            "the package archive has no address: check the network, or name another mirror",
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
