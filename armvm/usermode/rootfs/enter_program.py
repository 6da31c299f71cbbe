"""The program that `armvm rootfs enter` starts: a command in another root file system.

It is a process of its own, since it gives up the host's files half-way;
`armvm.usermode.rootfs.enter` writes its request. No shell and no mount(8): mounts go to places in
the root file system, and only who has left the host's root behind cannot be led back there by a
link. So it

1. takes namespaces of its own: mounts, processes, host name, System V IPC; for ordinary users,
   and for trees of theirs, a user namespace with the ids of /etc/subuid;
2. opens what it needs of the host (device files, /sys, resolv.conf) as mounts that are nowhere
   yet, and read-only;
3. makes the root file system its root by pivot_root(2), and mounts things below it: every name
   is now one in there (both are in `armvm.usermode.rootfs.mounts`);
4. starts the command (one of the host's, without 2 and 3, where the request names no root), and
   waits as process 1 of the namespace. When that ends, the kernel ends all that the command has
   left running, and the mounts are gone with the last of them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from typing import Any, NoReturn

from armvm.usermode.rootfs.mounts import C, Failed, call, prepare, say

# linux/sched.h, sys/prctl.h
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
PR_SET_PDEATHSIG = 1

#: Exit codes: the host cannot do it (as armvm's HostError), and a shell's for commands.
HOST_ERROR, NOT_RUNNABLE, NO_SUCH_COMMAND = 6, 126, 127


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends."""
    C.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def exit_code(status: int) -> int:
    """Return the exit code that a shell gives for wait(2)'s *status*."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


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
            os.execve(name, command, environment)  # noqa: S606
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
        prepare(request["root"], request["resolv"])
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


def guarded(function: Any, *arguments: Any) -> NoReturn:
    """Call a function that does not return; end with one clear error if it raises one."""
    try:
        function(*arguments)
    except Failed as error:
        say(str(error))
        say(f"hint: {error.hint}", mark="")
    except OSError as error:
        say(f"the root file system cannot be entered: {error.strerror or error}")
        closed = "every directory around it must be open (o+x) to the ids of /etc/subuid"
        other = "this needs Linux 5.12, and a directory that may be mounted from"
        say(f"hint: {closed if error.errno == errno.EACCES else other}", mark="")
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


def main() -> NoReturn:
    """Do what the request, the program's first argument, says with the command after it."""
    request = {**json.loads(sys.argv[1]), "command": sys.argv[2:]}
    # From here on nothing is imported: later it would come from the other root file system.
    sys.path.clear()
    guarded(outer, request)
