"""The shell script that runs one command in a guest, and lets its host follow it through files.

The guest agent runs a program and returns its output when it has ended, 16 MiB at most. So the
command's output goes through files of 4 MiB that the host reads while they grow and empties
afterwards; a command that writes faster than the host reads waits, as at any pipe. The files lie
in a directory of their own, whose name the host knows:

``status``          lines: ``start PID``, ``next STREAM``, ``end STREAM``, ``lost STREAM``,
                    ``took N``, ``exit CODE``
``out.N, err.N``    the streams, in pieces; ``next`` or ``end`` marks a piece as complete
``in.N``            a piece of the input; the host writes ``take N`` when it is complete
``control``         a FIFO that the host writes to: ``take N``, ``close`` (the input ends), ``bye``

It needs a POSIX shell, mkfifo, dd, cat and setsid; for another user, setpriv.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

#: The script's exit code if the user does not exist.
NO_USER = 67
#: Blocks of 64 KiB in a piece of output, and how many unread pieces may exist.
_BLOCKS, _PIECES = 64, 3
#: Seconds after the command's end until the script removes files that the host has not fetched.
_ABANDONED = 300
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")

_SCRIPT = f"""\
if [ -n "$user" ] && ! g=$(id -g "$user" 2>/dev/null); then
  exit {NO_USER}
fi
umask 077
mkdir "$d" && cd "$d" && mkfifo control && mkfifo -m 666 in out err || exit 1
: >out.0; : >err.0; : >status
exec 3<>control

pump() {{
  k=0
  while :; do
    got=$(LC_ALL=C dd bs=65536 count={_BLOCKS} 2>&1 >>"$1.$k") || {{
      echo "lost $1" >>status
      break
    }}
    got=${{got%% records in*}}
    got=${{got##*[!0-9+]}}  # GNU's dd may warn of short reads before
    [ $((${{got%+*}} + ${{got#*+}})) -lt {_BLOCKS} ] && break
    k=$((k + 1))
    : >>"$1.$k"
    echo "next $1" >>status
    while [ $k -ge {_PIECES} ] && [ -s "$1.$((k - {_PIECES}))" ]; do sleep 0.2; done
  done
  echo "end $1" >>status
}}

feed() {{
  while read -r word n <&3; do
    [ "$word" = take ] || break
    cat "in.$n"
    rm -f "in.$n"
    echo "took $n" >>status
  done
}}

pump out <out & p=$!
pump err <err & q=$!
feed >in & f=$!
home=${{HOME:-/root}}
if [ -n "$user" ]; then
  set -- setpriv --reuid="$user" --regid="$g" --init-groups --reset-env -- "$@"
  home=$(eval "echo ~$user")
else
  export HOME="$home" USER=root LOGNAME=root
fi
# In the foreground: the shell starts background commands with SIGINT ignored.
sh -c 'echo "start $$" >>status; cd "$0" 2>/dev/null || cd /; umask 022; exec setsid "$@"' \\
  "$home" "$@" <in >out 2>err 3<&-
echo "exit $?" >>status
kill $f
{{ trap 'kill $t; exit' TERM; sleep {_ABANDONED} & t=$!; wait $t; echo bye >&3; }} & s=$!
while read -r word n <&3; do [ "$word" = bye ] && break; done
kill $p $q $s
rm -rf "$d"
"""

#: Asks the command's process group to end, and kills it after 2 s. Signals the process itself too:
#: it reports its process id before it has its own group.
_KILL = """\
both() { kill -s "$1" -- -{pid} 2>/dev/null; kill -s "$1" {pid} 2>/dev/null; }
there() { kill -s 0 -- -{pid} 2>/dev/null || kill -s 0 {pid} 2>/dev/null; }
both TERM
for i in 1 2 3 4 5 6 7 8 9 10; do
  there || exit 0
  sleep 0.2
done
both KILL
exit 0
"""


def check_words(command: Sequence[str]) -> None:
    """Raise ConfigError if a command cannot be an argument list."""
    if any("\0" in word for word in command):
        raise ConfigError("a command's arguments cannot contain a zero byte")


def check_guest_user(user: str) -> str:
    """Return *user* if it is a valid account name, else raise ConfigError."""
    if _USER.fullmatch(user):
        return user
    raise ConfigError(f"invalid user name {shown(user)}")


def script(directory: str, command: Sequence[str], user: str | None) -> bytes:
    """Return the script for ``sh``'s standard input; the agent would log arguments.

    The script creates *directory*. Raises ConfigError for an invalid argument or user.
    """
    check_words(command)
    head = [
        f"d={shlex.quote(directory)}",
        f"user={shlex.quote(check_guest_user(user) if user is not None else '')}",
        f"set -- {shlex.join(command)}",
    ]
    return "\n".join([*head, _SCRIPT]).encode(errors="surrogateescape")


def kill_command(pid: int) -> list[str]:
    """Return the argument list that ends the command whose process id is *pid*."""
    return ["/bin/sh", "-c", _KILL.replace("{pid}", str(pid))]
