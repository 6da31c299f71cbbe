"""Mount the root that `armvm.usermode.rootfs.enter_program` enters, by system calls.

Only the standard library is used, and nothing is imported late: half-way, the files belong to
the other root file system. Requires Linux 5.12: open_tree(2), move_mount(2), mount_setattr(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import stat

# sys/mount.h, linux/mount.h, linux/fcntl.h
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 8, 0x4000, 0x40000, 2
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE = 1 | os.O_CLOEXEC  # OPEN_TREE_CLONE
FROM_EMPTY, TO_EMPTY = 0x4, 0x40  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH

#: System calls that older C libraries do not have. The newer ones have one number everywhere.
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
SYS_PIVOT_ROOT = {
    "x86_64": 155,
    **dict.fromkeys(("aarch64", "riscv64", "loongarch64"), 41),
    "ppc64le": 203,
    "s390x": 217,
}

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

C = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A failure, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def call(what: str, result: int) -> int:
    """Return a C function's *result*; raises OSError, with *what* failed, for -1."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Call mount(2). Raises OSError."""
    words = [None if one is None else os.fsencode(one) for one in (source, target, kind, data)]
    call(f"mount {target}", C.mount(*words[:3], ctypes.c_ulong(flags), words[3]))


def open_tree(descriptor: int, path: str, flags: int) -> int:
    """Return a descriptor of a detached copy of the mount at *path*. Raises OSError."""
    name = os.fsencode(path)
    return call(f"open_tree {path}", C.syscall(SYS_OPEN_TREE, descriptor, name, OPEN_TREE | flags))


def move_mount(tree: int, descriptor: int, path: str) -> None:
    """Attach a mount from open_tree(). Raises OSError."""
    flags = FROM_EMPTY | (0 if path else TO_EMPTY)
    name = os.fsencode(path)
    call(f"mount {path}", C.syscall(SYS_MOVE_MOUNT, tree, b"", descriptor, name, flags))


def lent(path: str, flags: int = 0) -> int:
    """Return a read-only copy of the mount at *path*, also with *flags* for all below it.

    Raises OSError, also before Linux 5.12, which cannot make it read-only.
    """
    tree = open_tree(AT_FDCWD, path, flags)
    attributes = (ctypes.c_uint64 * 4)(1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
    flags |= AT_EMPTY_PATH
    call(f"mount_setattr {path}", C.syscall(SYS_MOUNT_SETATTR, tree, b"", flags, attributes, 32))
    return tree


def say(text: str, mark: str = "armvm: ") -> None:
    """Write a line to standard error."""
    os.write(2, f"{mark}{text}\n".encode(errors="replace"))


def directory(path: str) -> None:
    """Make sure that *path* is a directory to mount on; create it if it is missing.

    Raises Failed if it is a link or a file.
    """
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        os.mkdir(path, 0o755)
        return
    if not stat.S_ISDIR(kind):
        raise Failed(
            f"{path} in the root file system is {'a link' if stat.S_ISLNK(kind) else 'a file'}",
            f"{path} must be a directory there, to mount on",
        )


class Host:
    """What the new root uses of the host, opened before it leaves the host's root."""

    def __init__(self, resolv: str | None) -> None:
        places = {name: f"/dev/{name}" for name in DEVICES}
        with contextlib.suppress(OSError):  # a terminal without a name, as in a container
            places |= {"console": os.ttyname(0)}
        # All read-only: devices stay writable, but their owner and mode cannot change.
        self.devices = {name: lent(path) for name, path in places.items()}
        self.sys = lent("/sys", AT_RECURSIVE)
        self.resolv: int | None = None
        if resolv is not None and os.path.isfile(resolv):
            self.resolv = lent(os.path.realpath(resolv))


def enter_root(path: str) -> None:
    """Make the directory *path* this process's root, with the host's still mounted on it.

    After that, absolute names are in the new root, and ``.`` is the host's root, until leave().
    """
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = open_tree(root, "", AT_EMPTY_PATH | AT_RECURSIVE)
    move_mount(tree, root, "")
    os.fchdir(tree)
    number = SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"unsupported machine for pivot_root: {platform.machine()}")
    call("pivot_root", C.syscall(number, b".", b"."))
    os.close(tree)
    os.close(root)


def leave() -> None:
    """Unmount the host's root; it cannot be reached after that."""
    call("umount", C.umount2(b".", MNT_DETACH))
    os.chdir("/")


def mount_dev(host: Host) -> None:
    """Create /dev: the harmless devices, its own terminals, shared memory, no disks."""
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755,size=1m")
    for name, tree in host.devices.items():
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        move_mount(tree, AT_FDCWD, f"/dev/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"/dev/{name}")
    options = "newinstance,ptmxmode=0666,mode=620"
    try:
        mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, f"{options},gid=5")
    except OSError:  # a user namespace without that group
        mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108
    for name, target in (
        *(("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")),
        *(("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")),
    ):
        os.symlink(target, f"/dev/{name}")


def lend_resolv(tree: int) -> None:
    """Mount the host's resolv.conf over the new root's, following links only inside it.

    It only hides a file of that name, or creates a link's missing target in /run.
    """
    place = os.path.realpath("/etc/resolv.conf")
    usual = os.path.basename(place) in ("resolv.conf", "stub-resolv.conf")
    if not usual or not os.path.isdir("/etc"):
        say("warning: no name resolution: /etc/resolv.conf there points elsewhere")
        return
    try:
        if not os.path.lexists(place):
            if place.startswith("/run/"):
                os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o644))
        move_mount(tree, AT_FDCWD, place)
    except OSError as error:
        say(f"warning: no name resolution: no resolv.conf there ({error.strerror})")


def prepare(root: str, resolv: str | None) -> None:
    """Make the root file system this process's root, with all that programs expect."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    host = Host(resolv)
    enter_root(root)
    for path in ("/proc", "/dev", "/sys", "/run"):
        directory(path)
    # Before the host's is unmounted: a user namespace may only mount what is already visible to it.
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    leave()
    mount_dev(host)
    move_mount(host.sys, AT_FDCWD, "/sys")
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)  # noqa: S103
    if host.resolv is not None:
        lend_resolv(host.resolv)
