"""What the guest's shell is told by ssh, so that a command's end is known here as it was there.

sshd reports a command that a signal ended by that signal, and ssh gives 255 for it, its own code
for its own failures (OpenSSH's clientloop.c ignores ``exit-signal``). A shell around the command
gives 128 + n, and ssh passes that on.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

#: Runs ``$3…`` in the directory ``$1`` (empty: where it is). A mark ``$2`` (empty: none) is written
#: to both outputs at the command's end, with its exit code: what comes after it is no word of the
#: command's. The shell outlives a Ctrl-C in the command's terminal; the subshell does not.
_RUN = """\
[ -z "$1" ] || cd -- "$1" || exit
mark=$2
shift 2
trap : INT QUIT
("$@")
code=$?
if [ -n "$mark" ]; then
  printf '%s %d\\n' "$mark" $code
  printf '%s %d\\n' "$mark" $code >&2
fi
exit $code"""
#: Runs the line ``$1`` as sshd does. Debian's bash reads its .bashrc for ssh where SHLVL is 1.
_LINE = 'trap : INT QUIT\nSHLVL=0 "${SHELL:-/bin/sh}" -c "$1"\nexit $?'


def run_line(words: Sequence[str], *, directory: str | None = None, mark: str = "") -> str:
    """Return the line that runs *words* as they are, in *directory* (default: the home).

    With *mark*, ``MARK CODE`` ends both outputs. A command ended by signal n gives 128 + n.
    """
    return shlex.join(["sh", "-c", _RUN, "sh", directory or "", mark, *words])


def shell_line(line: str) -> str:
    """Return the line that has the user's shell run *line*; 128 + n where signal n ended that."""
    return shlex.join(["sh", "-c", _LINE, "sh", line])
