"""Check a build's requirements on the host before it starts.

An ordinary user's build is root in a user namespace, with ids lent by /etc/subuid and
/etc/subgid (subuid(5)) through newuidmap. armvm tries whether that works; if it does not, it reads
the known causes: the kernel's sysctls user.max_user_namespaces, Debian's
kernel.unprivileged_userns_clone and Ubuntu's
kernel.apparmor_restrict_unprivileged_userns.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path

from armvm.base import process, programs
from armvm.base.errors import CommandFailed, MissingCapability, NotFound
from armvm.usermode.binfmt import aarch64
from armvm.usermode.rootfs.build import Mode
from armvm.usermode.rootfs.distros import Distro

#: The programs of every build.
PROGRAMS = (
    *("mmdebstrap", "apt-get", "dpkg", "dpkg-deb", "gpgv", "sfdisk"),
    *("mke2fs", "mformat", "mmd", "mcopy", "qemu-img"),
)

#: Number of ids that a user namespace needs: those of Debian's policy, up to nobody's.
IDS = 65536

#: The first id that useradd assigns (login.defs: SUB_UID_MIN).
_FIRST_ID = 100000

_NO_NAMESPACE = (
    "only root can build images here: this kernel does not allow user namespaces for ordinary users"
)


def check(
    mode: Mode, distro: Distro, directory: Path, *, user: str | None = None, keyring: Path | None
) -> None:
    """Raise MissingCapability, with the fix as hint, unless a build can start.

    *directory* is where the root file system will be. *user* is the builder (default: this
    process's). *keyring* must verify the archive (default: the *distro*'s own).
    """
    check_tools(PROGRAMS, mode)
    check_keyring(distro, keyring)
    aarch64.ensure_handler()
    check_place(mode, directory, user=user)


def check_tools(tools: Sequence[str], mode: Mode) -> None:
    """Raise MissingCapability unless *tools*, and those that *mode* needs, are installed."""
    wanted = [*tools, *(("unshare",) if mode is Mode.ROOT else ("newuidmap", "newgidmap"))]
    check_programs(wanted + ([] if aarch64.is_native() else ["arch-test"]))


def check_keyring(distro: Distro, keyring: Path | None) -> None:
    """Raise NotFound, MissingCapability unless the keys that verify the archive exist."""
    if keyring is not None and not keyring.is_file():
        raise NotFound(f"file {keyring} with the keys of {distro.title}'s archive not found")
    if keyring is None and not distro.keyring.is_file():
        by_file = f", or use --keyring FILE with {distro.keyring} from that package"
        raise MissingCapability(
            f"the keys of {distro.title}'s archive are not installed: {distro.keyring} not found",
            hint=f"apt-get install {distro.keyring_package}"
            + (by_file if distro.own_keyring else ""),
        )


def check_place(mode: Mode, directory: Path, *, user: str | None = None) -> None:
    """Raise MissingCapability unless *mode* works here, below *directory*, for *user*."""
    check_file_system(directory)
    if mode is Mode.ROOT:
        _check_mounts()
    else:
        check_namespace(user or pwd.getpwuid(os.getuid()).pw_name)


def check_programs(tools: Sequence[str], path: str | None = None) -> None:
    """Raise MissingCapability with all missing *tools* and their packages.

    Searches the directories of *path*, programs.search_path() by default.
    """
    path = programs.search_path() if path is None else path
    missing = [name for name in tools if shutil.which(name, path=path) is None]
    if missing:
        both = [programs.PACKAGES.get(name, (name, name)) for name in missing]
        apt, dnf = (" ".join(dict.fromkeys(names)) for names in zip(*both, strict=True))
        raise MissingCapability(
            f"required to build an image, but not installed: {', '.join(missing)}",
            hint=f"apt-get install {apt}   (or: dnf install {dnf})",
        )


def check_file_system(directory: Path) -> None:
    """Raise MissingCapability if programs below *directory* could not run."""
    flags = os.statvfs(directory).f_flag
    for flag, name in ((os.ST_NOEXEC, "noexec"), (os.ST_NODEV, "nodev")):
        if flags & flag:
            raise MissingCapability(
                f"{directory} is mounted {name}, so armvm cannot create a root file system there",
                hint=f"remount it with -o remount,{name.removeprefix('no')}, or build elsewhere",
            )


def check_namespace(user: str, *, etc: Path = Path("/etc"), proc: Path = Path("/proc")) -> None:
    """Raise MissingCapability unless *user* can be root in a user namespace."""
    missing = [
        f"{option} {_free_range(file)}"
        for file, option in ((etc / "subuid", "--add-subuids"), (etc / "subgid", "--add-subgids"))
        if lent(file, user) < IDS
    ]
    if missing:
        raise MissingCapability(
            f"user {user} needs {IDS} ids in {etc / 'subuid'} and {etc / 'subgid'} to build "
            "without root",
            hint=f"sudo usermod {' '.join(missing)} {user}   (or build as root)",
        )
    closed = closed_by(proc)
    try:
        process.run(["mmdebstrap", "--unshare-helper", "true"])
    except CommandFailed as error:
        raise explained(error.detail or error.message, closed) from error


def lent(file: Path, user: str) -> int:
    """Return how many ids *file* (in subuid(5)'s format) lends to *user*, by name."""
    found = range_of(file, user)
    return 0 if found is None else found[1]


def range_of(file: Path, user: str) -> tuple[int, int] | None:
    """Return the first id and the number of ids that *file* lends to *user*, or None.

    Uses the first line with that name, as mmdebstrap does.
    """
    for name, first, count in _ranges(file):
        if name == user:
            return first, count
    return None


def closed_by(proc: Path) -> list[tuple[str, str]]:
    """Return the sysctls that may forbid user namespaces, each with the command to allow them."""
    found = []
    for name, bad, good in (
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        try:
            value = (proc / "sys" / name.replace(".", "/")).read_text().strip()
        except OSError:
            continue  # not in this kernel
        if value == bad:
            found.append((f"{name} is {bad}", f"sudo sysctl -w {name}={good}"))
    return found


def explained(log: str, closed: Sequence[tuple[str, str]]) -> MissingCapability:
    """Return the error for a user namespace that could not be created, from mmdebstrap's *log*."""
    if closed:
        return MissingCapability(
            f"{_NO_NAMESPACE} ({'; '.join(what for what, _ in closed)})",
            detail=log,
            hint="; ".join(command for _, command in closed) + "   (or build as root)",
        )
    if "newuidmap" in log or "newgidmap" in log:
        return MissingCapability(
            "newuidmap cannot map ids of a user namespace",
            detail=log,
            hint="newuidmap must belong to root, be setuid (chmod u+s /usr/bin/newuidmap "
            "/usr/bin/newgidmap) and be on a file system without nosuid; containers may "
            "still forbid it. Or build as root",
        )
    return MissingCapability(
        _NO_NAMESPACE,
        detail=log,
        hint="containers forbid it by default (seccomp); build as root, or outside the container",
    )


def _check_mounts() -> None:
    """Raise MissingCapability if root may not mount, as in most containers."""
    try:
        process.run(["unshare", "--mount", "--propagation", "private", "true"])
    except CommandFailed as error:
        raise MissingCapability(
            "root cannot mount here, as in an unprivileged container",
            detail=error.detail,
            hint="build outside the container, or give it CAP_SYS_ADMIN (docker run --privileged)",
        ) from error


def _ranges(file: Path) -> list[tuple[str, int, int]]:
    """Return the lines of a file in subuid(5)'s format: name, first id, count."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        name, *numbers = line.strip().split(":")
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            found.append((name, int(numbers[0]), int(numbers[1])))
    return found


def _free_range(file: Path) -> str:
    """Return a range of ids that *file* does not lend to anybody: ``165536-231071``."""
    start = max([_FIRST_ID, *(first + count for _, first, count in _ranges(file))])
    return f"{start}-{start + IDS - 1}"
