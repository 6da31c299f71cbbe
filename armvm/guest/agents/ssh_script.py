"""Shell lines for ssh that keep a command's exit code.

sshd reports a command that a signal ended by that signal, and ssh then exits with 255, the code of
its own failures (OpenSSH's clientloop.c ignores ``exit-signal``). A shell around the command
exits with 128 + n, and ssh passes that on.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

#: Exit code of ssh for its own errors (ssh(1), EXIT STATUS); a command can return it, too.
FAILED = 255
#: Runs ``$3…`` in the directory ``$1`` (empty: the current one). At the command's end, writes a
#: mark ``$2`` (empty: none) with its exit code to both outputs: later bytes are not the command's.
#: The shell outlives a Ctrl-C in the command's terminal; the subshell does not.
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
#: Runs the line ``$1`` as sshd does. Debian's bash reads its .bashrc for ssh if SHLVL is 1.
_LINE = 'trap : INT QUIT\nSHLVL=0 "${SHELL:-/bin/sh}" -c "$1"\nexit $?'
#: The same in the bash that sshd has started already. Another one takes an emulated guest 0.1 s.
_IN_BASH = "trap : INT QUIT\n(eval %s)\nexit $?"
#: In a subshell this is the process id of the shell around it, which must outlive the line.
_OWN_PROCESS = re.compile(r"\$\$|\$\{\$|PPID")
#: The longest line that is sent in both forms, in characters: Linux limits a word to 128 KiB, and
#: quotes become longer.
_LONGEST = 4 << 10


def run_line(words: Sequence[str], *, directory: str | None = None, mark: str = "") -> str:
    """Return the line that runs *words* unchanged, in *directory* (default: the home).

    With *mark*, ``MARK CODE`` ends both outputs. A command ended by signal n exits with 128 + n.
    """
    return shlex.join(["sh", "-c", _RUN, "sh", directory or "", mark, *words])


def shell_line(line: str) -> str:
    """Return the line that makes the user's shell run *line*; 128 + n if signal n ended it.

    Any shell can read it. If the user's is not bash, it starts a new shell.
    """
    general = shlex.join(["sh", "-c", _LINE, "sh", line])
    if len(line) > _LONGEST or _OWN_PROCESS.search(line):
        return general
    in_bash = shlex.quote(_IN_BASH % shlex.quote(line))
    return f'test "$SHELL" = /bin/bash && eval {in_bash}; {general}'
