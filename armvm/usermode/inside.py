"""The program that `armvm rootfs enter` starts: a command in another root file system.

It is a program of its own (``python -I -S inside.py REQUEST COMMAND…``) that knows the standard library
alone, since it gives up the host's files half-way; `armvm.usermode.enter` writes its request.
No shell and no mount(8): mounts go to places in the root file system, and only who has left the
host's root behind cannot be led back there by a link. So it

1. takes namespaces of its own: mounts, processes, host name, System V IPC; for ordinary users,
   and for trees of theirs, a user namespace with the ids of /etc/subuid;
2. opens what it needs of the host (device files, /sys, resolv.conf) as mounts that are nowhere
   yet, and read-only: open_tree(2), mount_setattr(2), Linux 5.12;
3. makes the root file system its root by pivot_root(2), and mounts things below it: every name
   is now one in there;
4. starts the command (one of the host's, and without 2 and 3, where the request has no root), and waits as process 1 of the namespace. When that ends, the kernel ends
   all that the command has left running, and the mounts are gone with the last of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import signal
import stat
import sys
from typing import Any, NoReturn

# linux/sched.h, sys/mount.h, linux/mount.h, linux/fcntl.h, sys/prctl.h
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 8, 0x4000, 0x40000, 2
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE = 1 | os.O_CLOEXEC  # OPEN_TREE_CLONE
FROM_EMPTY, TO_EMPTY = 0x4, 0x40  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
PR_SET_PDEATHSIG = 1

#: System calls without a function in older C libraries. The newer ones have one number everywhere.
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
SYS_PIVOT_ROOT = {
    "x86_64": 155,
    **dict.fromkeys(("aarch64", "riscv64", "loongarch64"), 41),
    "ppc64le": 203,
    "s390x": 217,
}

#: Exit codes: the host cannot do it (as armvm's HostError), and a shell's for commands.
HOST_ERROR, NOT_RUNNABLE, NO_SUCH_COMMAND = 6, 126, 127

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

C = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """What cannot be done, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def call(what: str, result: int) -> int:
    """Return a C function's *result*; raises OSError, which says *what* failed, for -1."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Call mount(2). Raises OSError."""
    words = [None if one is None else os.fsencode(one) for one in (source, target, kind, data)]
    call(f"mount {target}", C.mount(*words[:3], ctypes.c_ulong(flags), words[3]))


def open_tree(descriptor: int, path: str, flags: int) -> int:
    """Return a descriptor of a copy of the mount at *path*, attached nowhere. Raises OSError."""
    name = os.fsencode(path)
    return call(f"open_tree {path}", C.syscall(SYS_OPEN_TREE, descriptor, name, OPEN_TREE | flags))


def move_mount(tree: int, descriptor: int, path: str) -> None:
    """Attach a mount that open_tree() gave. Raises OSError."""
    flags = FROM_EMPTY | (0 if path else TO_EMPTY)
    name = os.fsencode(path)
    call(f"mount {path}", C.syscall(SYS_MOVE_MOUNT, tree, b"", descriptor, name, flags))


def lent(path: str, flags: int = 0) -> int:
    """Return a read-only copy of the mount at *path*, with *flags* of all below it too.

    Raises OSError, also before Linux 5.12, which cannot make it read-only.
    """
    tree = open_tree(AT_FDCWD, path, flags)
    attributes = (ctypes.c_uint64 * 4)(1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
    flags |= AT_EMPTY_PATH
    call(f"mount_setattr {path}", C.syscall(SYS_MOUNT_SETATTR, tree, b"", flags, attributes, 32))
    return tree


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends."""
    C.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def exit_code(status: int) -> int:
    """Return the exit code that a shell gives for wait(2)'s *status*."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def directory(path: str) -> None:
    """See to it that *path* is a directory to mount on; one that is missing is made.

    Raises Failed for a link or a file in its place.
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
    """What the new root gets of the host, opened before the host's root is left."""

    def __init__(self, resolv: str | None) -> None:
        places = {name: f"/dev/{name}" for name in DEVICES}
        with contextlib.suppress(OSError):  # a terminal without a name here, as in a container
            places |= {"console": os.ttyname(0)}
        # All read-only: a device takes what is written to it, but its owner and mode stay.
        self.devices = {name: lent(path) for name, path in places.items()}
        self.sys = lent("/sys", AT_RECURSIVE)
        self.resolv: int | None = None
        if resolv is not None and os.path.isfile(resolv):
            self.resolv = lent(os.path.realpath(resolv))


def enter_root(path: str) -> None:
    """Make the directory *path* this process's root, with the host's still mounted over it.

    Afterwards absolute names are the new root's, and ``.`` is the host's root, until leave().
    """
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = open_tree(root, "", AT_EMPTY_PATH | AT_RECURSIVE)
    move_mount(tree, root, "")
    os.fchdir(tree)
    number = SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"pivot_root is not known for {platform.machine()}")
    call("pivot_root", C.syscall(number, b".", b"."))
    os.close(tree)
    os.close(root)


def leave() -> None:
    """Unmount the host's root; nothing of it can be reached from here any more."""
    call("umount", C.umount2(b".", MNT_DETACH))
    os.chdir("/")


def mount_dev(host: Host) -> None:
    """Make /dev: the harmless devices, terminals of its own, shared memory. No disk is there."""
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
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for name, target in (
        *(("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")),
        *(("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")),
    ):
        os.symlink(target, f"/dev/{name}")


def lend_resolv(tree: int) -> None:
    """Put the host's resolv.conf where the new root's is, through links that stay in there.

    What it hides is a file of that name, or a link's missing target in /run, and nothing else.
    """
    place = os.path.realpath("/etc/resolv.conf")
    usual = os.path.basename(place) in ("resolv.conf", "stub-resolv.conf")
    if not usual or not os.path.isdir("/etc"):
        say("warning: /etc/resolv.conf is a link to something else there: names are not looked up")
        return
    try:
        if not os.path.lexists(place):
            if place.startswith("/run/"):
                os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o644))
        move_mount(tree, AT_FDCWD, place)
    except OSError as error:
        say(f"warning: no resolv.conf there ({error.strerror}): names are not looked up")


def prepare(request: dict[str, Any]) -> None:
    """Make the root file system this process's root, with all that programs expect."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    host = Host(request["resolv"])
    enter_root(request["root"])
    for path in ("/proc", "/dev", "/sys", "/run"):
        directory(path)
    # Before the host's is gone: a user namespace may mount what it can see already.
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    leave()
    mount_dev(host)
    move_mount(host.sys, AT_FDCWD, "/sys")
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)
    if host.resolv is not None:
        lend_resolv(host.resolv)


def run(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Become the command. Ends with 127 where there is none of that name, 126 if it cannot run."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError, KeyError):
        os.chdir(environment["HOME"])
    names = [command[0]]
    if "/" not in command[0]:
        names = [f"{part}/{command[0]}" for part in environment["PATH"].split(":") if part]
    worst: OSError | None = None
    for name in names:
        try:
            os.execve(name, command, environment)
        except (FileNotFoundError, NotADirectoryError) as error:
            # A program is there, and its loader is not, is said in the same way.
            worst = worst or (error if os.path.exists(name) else None)
        except OSError as error:
            worst = error
    if worst is None:
        say(f"there is no program {command[0]!r} in the root file system")
        os._exit(NO_SUCH_COMMAND)
    why = "its loader is missing" if worst.errno == errno.ENOENT else worst.strerror
    say(f"{command[0]!r} cannot be run: {why}")
    if worst.errno == errno.ENOEXEC:
        say("hint: no binfmt handler takes it: armvm binfmt status", mark="")
    os._exit(NOT_RUNNABLE)


def first(request: dict[str, Any]) -> NoReturn:
    """Be process 1 of the namespace: prepare, start the command, wait for it."""
    die_with_parent()
    environment = request["environment"]
    if request["root"] is not None:
        prepare(request)
    child = os.fork()
    if child == 0:
        run(request["command"], dict(os.environ) if environment is None else environment)
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(exit_code(status))


def lend_ids(pid: int, request: dict[str, Any]) -> None:
    """Give the user namespace of process *pid* its ids. Raises Failed."""
    for kind in ("uid", "gid"):
        lines = request["ids"][kind]
        if request["direct"]:
            with open(f"/proc/{pid}/{kind}_map", "w") as file:
                file.write("".join(f"{' '.join(map(str, line))}\n" for line in lines))
            continue
        words = [request[f"new{kind}map"], str(pid), *(str(n) for line in lines for n in line)]
        child = os.posix_spawn(words[0], words, os.environ)
        if os.waitpid(child, 0)[1] != 0:
            raise Failed(
                f"new{kind}map lends no ids to a user namespace",
                f"look at /etc/sub{kind}; newuidmap and newgidmap must be setuid root",
            )


def namespaces(request: dict[str, Any]) -> None:
    """Take namespaces, and in a user namespace become its root, once ids were lent."""
    flags = NEWNS | NEWPID | NEWUTS | NEWIPC | (NEWUSER if request["ids"] else 0)
    try:
        call("unshare", C.unshare(flags))
    except OSError as error:
        who = "an ordinary user may have no namespace of his own here"
        raise Failed(
            f"{who if request['ids'] else 'root may have no namespace here'} ({error.strerror})",
            "run it as root, outside a container; armvm doctor knows what forbids it",
        ) from error


def middle(request: dict[str, Any], ready: int, go: int) -> NoReturn:
    """Take the namespaces, and wait for process 1 in them."""
    die_with_parent()
    namespaces(request)
    os.write(ready, b"1")
    if os.read(go, 1) != b"1":
        os._exit(HOST_ERROR)
    if request["ids"]:
        os.setresgid(0, 0, 0)
        os.setgroups([])
        os.setresuid(0, 0, 0)
    die_with_parent()  # a change of ids forgets it
    child = os.fork()
    if child == 0:
        guarded(first, request)
    os._exit(exit_code(os.waitpid(child, 0)[1]))


def say(text: str, mark: str = "armvm: ") -> None:
    """Write a line to standard error."""
    os.write(2, f"{mark}{text}\n".encode(errors="replace"))


def guarded(function: Any, *arguments: Any) -> NoReturn:
    """Call a function that does not return; end with one clear error if it raises one."""
    try:
        function(*arguments)
    except Failed as error:
        say(str(error))
        say(f"hint: {error.hint}", mark="")
    except OSError as error:
        say(f"the root file system cannot be entered: {error.strerror or error}")
        say("hint: this needs Linux 5.12, and a directory that may be mounted from", mark="")
    os._exit(HOST_ERROR)


def outer(request: dict[str, Any]) -> NoReturn:
    """Start the process that takes the namespaces, lend it ids, and pass its exit code on."""
    # For the terminal's keys, which the command gets too.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    ready, told = os.pipe()
    waits, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        os.close(go)
        guarded(middle, request, told, waits)
    os.close(told)
    os.close(waits)
    if os.read(ready, 1) == b"1":
        if request["ids"]:
            lend_ids(child, request)
        os.write(go, b"1")
    os._exit(exit_code(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    document = {**json.loads(sys.argv[1]), "command": sys.argv[2:]}
    # From here on nothing is imported: later it would come from the other root file system.
    sys.path.clear()
    guarded(outer, document)
