"""Run in a namespace of its own by armvm, as a file of its own: it mounts, then starts a program.

``own_namespace.py [--hide DIR] [--root DIR] -- PROGRAM [ARGS…]``: mounts an empty file system over
DIR, changes the root, and becomes PROGRAM. On failure it prints one line ``armvm: STEP ERRNO`` to
standard error and exits with code 125. It does not import armvm: Python runs it isolated.
"""

from __future__ import annotations

import ctypes
import os
import sys

FAILED = 125


def mount(kind: str, target: str) -> None:
    """Mount a file system without a device (mount(2)). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), os.fsencode(target), kind.encode(), 0, None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {kind}")


def main(words: list[str]) -> int:
    """Do what the words say; returns only where something fails."""
    at = words.index("--")
    options, command = words[:at], words[at + 1 :]
    pairs = list(zip(options[::2], options[1::2]))  # noqa: B905 - Python 3.9 has no strict
    step = "start"
    try:
        for option, value in pairs:
            if option == "--hide":
                step = "hide"
                mount("tmpfs", value)
            elif option == "--root":
                step = "chroot"
                os.chroot(value)
                os.chdir("/")
        step = "execute"
        sys.stdout.flush()
        os.execvp(command[0], command)  # noqa: S606 - becoming the program is the purpose
    except OSError as error:
        print(f"armvm: {step} {error.errno}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
