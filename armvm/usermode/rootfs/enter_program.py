"""The program that `armvm rootfs enter` starts: it runs a command in a root file system.

It is a separate process, because it leaves the host's root halfway; `armvm.usermode.rootfs.enter`
writes its request. It uses neither a shell nor mount(8): it mounts inside the root file system,
and a link there could lead a process to the host's files until it has left the host's root. The
steps:

1. Create namespaces: mounts, processes, host name, System V IPC; for ordinary users,
   and for their trees, a user namespace with the ids of /etc/subuid.
2. Open the required files of the host (device files, /sys, resolv.conf) as detached, read-only
   mounts.
3. Make the root file system its root by pivot_root(2), and mount things below it: every name
   is now one inside (both are in `armvm.usermode.rootfs.mounts`).
4. Start the command (a host command, without 2 and 3, if the request names no root), and wait as
   process 1 of the namespace. When it ends, the kernel ends all remaining processes of the
   command, and the mounts go with the last of them.
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
    """Make the kernel end this process when its parent ends."""
    C.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def exit_code(status: int) -> int:
    """Return a shell's exit code for wait(2)'s *status*."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def run(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Become the command. Exits with 127 if it is not found, 126 if it cannot run."""
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
            # ENOENT also means that the program exists, but its loader does not.
            worst = worst or (error if os.path.exists(name) else None)
        except OSError as error:
            worst = error
    if worst is None:
        say(f"program {command[0]!r} not found in the root file system")
        os._exit(NO_SUCH_COMMAND)
    why = "its loader is missing" if worst.errno == errno.ENOENT else worst.strerror
    say(f"cannot run {command[0]!r}: {why}")
    if worst.errno == errno.ENOEXEC:
        say("hint: no binfmt handler matches it; see armvm binfmt status", mark="")
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
    """Map the ids of the user namespace of process *pid*. Raises Failed."""
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
                f"new{kind}map cannot map ids of a user namespace",
                f"check /etc/sub{kind}; newuidmap and newgidmap must be setuid root",
            )


def namespaces(request: dict[str, Any]) -> None:
    """Create namespaces, and become root of the user namespace once ids are mapped."""
    flags = NEWNS | NEWPID | NEWUTS | NEWIPC | (NEWUSER if request["ids"] else 0)
    try:
        call("unshare", C.unshare(flags))
    except OSError as error:
        who = "no namespaces for ordinary users on this host"
        raise Failed(
            f"{who if request['ids'] else 'no namespaces for root on this host'} "
            f"({error.strerror})",
            "run it as root, outside a container; armvm doctor shows the cause",
        ) from error


def middle(request: dict[str, Any], ready: int, go: int) -> NoReturn:
    """Create the namespaces, and wait for process 1 in them."""
    die_with_parent()
    namespaces(request)
    os.write(ready, b"1")
    if os.read(go, 1) != b"1":
        os._exit(HOST_ERROR)
    if request["ids"]:
        os.setresgid(0, 0, 0)
        os.setgroups([])
        os.setresuid(0, 0, 0)
    die_with_parent()  # a change of ids clears it
    child = os.fork()
    if child == 0:
        guarded(first, request)
    os._exit(exit_code(os.waitpid(child, 0)[1]))


def guarded(function: Any, *arguments: Any) -> NoReturn:
    """Call a function that does not return; exit with one clear error if it raises one."""
    try:
        function(*arguments)
    except Failed as error:
        say(str(error))
        say(f"hint: {error.hint}", mark="")
    except OSError as error:
        say(f"cannot enter the root file system: {error.strerror or error}")
        closed = "every parent directory must be accessible (o+x) to the ids of /etc/subuid"
        other = "this requires Linux 5.12 or newer, and a directory that can be bind-mounted"
        say(f"hint: {closed if error.errno == errno.EACCES else other}", mark="")
    os._exit(HOST_ERROR)


def outer(request: dict[str, Any]) -> NoReturn:
    """Start the process that creates the namespaces, map its ids, and pass its exit code on."""
    # For the terminal's keys, which the command receives too.
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
    """Execute the request, the program's first argument, with the command after it."""
    request = {**json.loads(sys.argv[1]), "command": sys.argv[2:]}
    # No imports from here on: they would come from the other root file system.
    sys.path.clear()
    guarded(outer, request)
