"""What a build needs of its host, looked at before it begins, so that no minutes are lost.

An ordinary user's build is root in a user namespace, with ids lent by /etc/subuid and
/etc/subgid (subuid(5)) through newuidmap. Whether that works is tried; where it does not, the
places that are known to forbid it are read: the kernel's sysctls user.max_user_namespaces,
Debian's kernel.unprivileged_userns_clone and Ubuntu's
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

#: What every build runs.
PROGRAMS = (
    *("mmdebstrap", "apt-get", "dpkg", "dpkg-deb", "gpgv", "sfdisk"),
    *("mke2fs", "mformat", "mmd", "mcopy", "qemu-img"),
)

#: How many ids a user namespace needs: those of Debian's policy, up to nobody's.
IDS = 65536

#: Ids that useradd gives away from here on (login.defs: SUB_UID_MIN).
_FIRST_ID = 100000

_NO_NAMESPACE = (
    "only root can build images here: this kernel gives ordinary users no user namespace"
)


def check(
    mode: Mode, distro: Distro, directory: Path, *, user: str | None = None, keyring: Path | None
) -> None:
    """Raise MissingCapability unless a build can begin; its hint is what mends it.

    *directory* is where the root file system will be. *user* is who builds (this process's, by
    default). *keyring* must vouch for the archive, the *distro*'s own if none is given.
    """
    check_tools(PROGRAMS, mode)
    check_keyring(distro, keyring)
    aarch64.ensure_handler()
    check_place(mode, directory, user=user)


def check_tools(tools: Sequence[str], mode: Mode) -> None:
    """Raise MissingCapability unless *tools* are here, and those that *mode* needs."""
    wanted = [*tools, *(("unshare",) if mode is Mode.ROOT else ("newuidmap", "newgidmap"))]
    check_programs(wanted + ([] if aarch64.is_native() else ["arch-test"]))


def check_keyring(distro: Distro, keyring: Path | None) -> None:
    """Raise NotFound, MissingCapability unless there are keys that vouch for the archive."""
    if keyring is not None and not keyring.is_file():
        raise NotFound(f"there is no file {keyring} with the keys of {distro.title}'s archive")
    if keyring is None and not distro.keyring.is_file():
        by_file = f", or --keyring FILE: {distro.keyring} out of that package"
        raise MissingCapability(
            f"the keys of {distro.title}'s archive are not here: no {distro.keyring}",
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
    """Raise MissingCapability that names all *tools* that are missing, and their packages.

    They are looked for in the directories of *path*, programs.search_path() by default.
    """
    path = programs.search_path() if path is None else path
    missing = [name for name in tools if shutil.which(name, path=path) is None]
    if missing:
        both = [programs.PACKAGES.get(name, (name, name)) for name in missing]
        apt, dnf = (" ".join(dict.fromkeys(names)) for names in zip(*both, strict=True))
        raise MissingCapability(
            f"building an image needs {', '.join(missing)}, not installed here",
            hint=f"apt-get install {apt}   (or: dnf install {dnf})",
        )


def check_file_system(directory: Path) -> None:
    """Raise MissingCapability where programs below *directory* could not be run."""
    flags = os.statvfs(directory).f_flag
    for flag, name in ((os.ST_NOEXEC, "noexec"), (os.ST_NODEV, "nodev")):
        if flags & flag:
            raise MissingCapability(
                f"{directory} is mounted {name}, so no root file system can be made there",
                hint=f"mount -o remount,{name.removeprefix('no')} it, or build elsewhere",
            )


def check_namespace(user: str, *, etc: Path = Path("/etc"), proc: Path = Path("/proc")) -> None:
    """Raise MissingCapability unless *user* can be root in a user namespace of his own."""
    missing = [
        f"{option} {_free_range(file)}"
        for file, option in ((etc / "subuid", "--add-subuids"), (etc / "subgid", "--add-subgids"))
        if lent(file, user) < IDS
    ]
    if missing:
        raise MissingCapability(
            f"{user} has no {IDS} ids of his own in {etc / 'subuid'} and {etc / 'subgid'}, which a "
            "build by an ordinary user needs",
            hint=f"sudo usermod {' '.join(missing)} {user}   (or build as root)",
        )
    closed = closed_by(proc)
    try:
        process.run(["mmdebstrap", "--unshare-helper", "true"])
    except CommandFailed as error:
        raise explained(error.detail or error.message, closed) from error


def lent(file: Path, user: str) -> int:
    """Return how many ids *file* (of subuid(5)'s form) lends to *user*, by his name."""
    found = range_of(file, user)
    return 0 if found is None else found[1]


def range_of(file: Path, user: str) -> tuple[int, int] | None:
    """Return the first id and the number of ids that *file* lends to *user*; None if it does not.

    As mmdebstrap reads it: the first line of that name.
    """
    for name, first, count in _ranges(file):
        if name == user:
            return first, count
    return None


def closed_by(proc: Path) -> list[tuple[str, str]]:
    """Return the sysctls that may close user namespaces, each with the command that opens them."""
    found = []
    for name, bad, good in (
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        try:
            value = (proc / "sys" / name.replace(".", "/")).read_text().strip()
        except OSError:
            continue  # not this kernel's
        if value == bad:
            found.append((f"{name} is {bad}", f"sudo sysctl -w {name}={good}"))
    return found


def explained(log: str, closed: Sequence[tuple[str, str]]) -> MissingCapability:
    """Return the error for a user namespace that could not be had, as mmdebstrap's *log* says."""
    if closed:
        return MissingCapability(
            f"{_NO_NAMESPACE} ({'; '.join(what for what, _ in closed)})",
            detail=log,
            hint="; ".join(command for _, command in closed) + "   (or build as root)",
        )
    if "newuidmap" in log or "newgidmap" in log:
        return MissingCapability(
            "newuidmap may not lend ids to a user namespace",
            detail=log,
            hint="it must belong to root, be setuid (chmod u+s /usr/bin/newuidmap "
            "/usr/bin/newgidmap) and lie on a file system without nosuid; in a container it may "
            "be forbidden all the same. Or build as root",
        )
    return MissingCapability(
        _NO_NAMESPACE,
        detail=log,
        hint="in a container its seccomp profile forbids it by default; build as root, or outside",
    )


def _check_mounts() -> None:
    """Raise MissingCapability where root may not mount: in most containers."""
    try:
        process.run(["unshare", "--mount", "--propagation", "private", "true"])
    except CommandFailed as error:
        raise MissingCapability(
            "root may not mount anything here, as in a container without privileges",
            detail=error.detail,
            hint="build outside the container, or give it CAP_SYS_ADMIN (docker run --privileged)",
        ) from error


def _ranges(file: Path) -> list[tuple[str, int, int]]:
    """Return the lines of a file of subuid(5)'s form: name, first id, count."""
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
    """Return a range of ids that *file* lends to nobody yet: ``165536-231071``."""
    start = max([_FIRST_ID, *(first + count for _, first, count in _ranges(file))])
    return f"{start}-{start + IDS - 1}"
