"""Read the log of a root file system's build: sizes, unknown packages, causes of failure."""

from __future__ import annotations

import re

from armvm.base.errors import ArmvmError, BuildFailed, NotFound
from armvm.settings.names import shown
from armvm.usermode.rootfs.distros import Distro

#: Most lines of a log that are kept: what runs in a root file system may print any number.
MOST_LINES = 3000
#: Lines of the log to show for a failed build: before and after the likely cause.
LINES_BEFORE, LINES_AFTER = 8, 12

#: How dpkg, apt and the scripts start the important line.
CAUSES = ("dpkg: error", "E: ", "W: Failed to fetch", "Traceback", "not installed:")

#: What apt prints before the download; its units are powers of ten (apt-pkg/contrib/strutl.cc).
_AFTER = re.compile(
    r"After this operation, ([0-9.,]+) ([kMGT]?B) of additional disk space will be used"
)
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

#: How apt reports a missing package: unknown, or without an installable version.
_UNKNOWN = (
    re.compile(r"E: Unable to locate package (\S+)"),
    re.compile(r"E: Couldn't find any package by (?:glob|regex) '(\S+)'"),
    re.compile(r"E: Package '(\S+)' has no installation candidate"),
    re.compile(r"E: Couldn't find these debs: (\S+)"),  # debootstrap
)


def failure(lines: list[str], distro: Distro, suite: str, arch: str = "arm64") -> ArmvmError:
    """Return the error for a failed build of a root file system, from its log's *lines*."""
    if unknown := unknown_packages(lines):
        names = ", ".join(shown(name) for name in unknown)
        return NotFound(
            f"package {names} not found in {distro.title} {suite}",
            hint=f"search for it at {distro.lookup}; armvm uses only "
            f"{' and '.join(distro.components)}, and only packages for {arch}",
        )
    return BuildFailed(
        f"cannot create the root file system of {distro.title} {suite}",
        detail="\n".join(extract(lines)),
        hint=_hint("\n".join(lines), distro),
    )


def unpacked_size(line: str) -> int | None:
    """Return the bytes that apt says its packages will take; None for other lines."""
    found = _AFTER.match(line)
    if found is None:
        return None
    return int(float(found[1].replace(",", "")) * _UNITS[found[2]])


def unknown_packages(log: list[str]) -> list[str]:
    """Return the packages that apt could not find, from its log."""
    matches = (pattern.match(line) for line in log for pattern in _UNKNOWN)
    return list(dict.fromkeys(match[1] for match in matches if match))


def extract(log: list[str]) -> list[str]:
    """Return the lines of a build's log that show why it failed: around the first error."""
    cause = next((i for i, line in enumerate(log) if line.startswith(CAUSES)), None)
    if cause is None:
        return log[-LINES_BEFORE - LINES_AFTER :]
    return log[max(cause - LINES_BEFORE, 0) : cause + LINES_AFTER]


def _hint(log: str, distro: Distro) -> str:
    """Return what to do about a failure, from the log."""
    unsigned = (
        f"the archive is not signed by a key in {distro.keyring}: check that it is "
        f"{distro.title}'s; a newer {distro.keyring_package} may have its key"
    )
    for sign, hint in (
        ("No space left on device", "free space in the build's directory"),
        (
            "newuidmap",
            "an ordinary user needs newuidmap (apt-get install uidmap) and entries in /etc/subuid "
            "and /etc/subgid; or build as root",
        ),
        ("unshare", "this host does not allow user namespaces for ordinary users: build as root"),
        (
            "Mirror sync in progress",
            "the package archive is being updated: try again later, or use another mirror",
        ),
        # Before "Failed to fetch", which apt prints too: gpgv's words, and sqv's (apt 3).
        ("NO_PUBKEY", unsigned),
        ("Missing key", unsigned),
        (
            "Failed to fetch",
            "the package archive does not answer: check the network, or use another mirror",
        ),
        (
            "Could not resolve",
            "cannot resolve the package archive's name: check the network, or use another mirror",
        ),
        (
            "does not have a Release file",
            f"suite not found on the mirror; {distro.title} keeps arm64 "
            + (f"at {distro.mirror}" if distro.mirror else "in its main archive"),
        ),
        (
            "held broken packages",
            "the requested packages conflict; see the log above",
        ),
        ("Exec format error", "the binfmt handler does not work: see armvm doctor"),
    ):
        if sign in log:
            return hint
    return "see the last lines of the log above; the next build starts from scratch"
