"""Copy files to and from a guest by scp over SFTP.

In scp's older protocol a shell in the guest parses the names, and the guest can send files that
were not requested. SFTP has neither problem.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import UsageError
from armvm.guest.ssh import options
from armvm.settings.names import shown

#: A machine name before the first colon. With a slash before the colon, the path is local.
_REMOTE = re.compile(r"(?P<machine>[a-z0-9][a-z0-9-]{0,62}):(?P<path>.*)", re.DOTALL)
#: Characters that the SFTP client expands as a pattern in the name of a file to download.
_PATTERN = re.compile(r"([\\*?\[\]])")


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A copy between this host and one machine. Paths are unchanged from the command line."""

    machine: str
    sources: tuple[str, ...]
    target: str
    upload: bool


def read_copy(words: Sequence[str]) -> Copy:
    """Parse ``SRC… DST``, where one side is ``NAME:PATH``. Raises UsageError.

    ``./a:b`` and ``/tmp/a:b`` are files on this host.
    """
    if len(words) < 2:
        raise UsageError(
            "a source and a target are required", hint="example: armvm cp file NAME:dir"
        )
    if any("\0" in word for word in words):
        raise UsageError("a path cannot contain a zero byte")
    if "" in words:
        raise UsageError(
            "invalid path ''",
            hint="for the working directory, use . ; for the guest user's home, use NAME:",
        )
    if "-" in words:
        raise UsageError(
            "armvm cp cannot read standard input or write standard output",
            hint="use ssh: armvm ssh NAME -- 'cat >FILE'   or   armvm ssh NAME -- cat FILE; "
            "for a file called -, use ./-",
        )
    *sources, target = words
    there = [_REMOTE.fullmatch(one) for one in sources]
    into = _REMOTE.fullmatch(target)
    if into is not None and any(there):
        raise UsageError(
            "both sides are machines; armvm cp copies between this host and one machine",
            hint=f"copy in two steps: {shlex.join(['armvm', 'cp', sources[0], './here'])}, then "
            f"{shlex.join(['armvm', 'cp', './here', target])}. "
            "For a local file with a colon in its name, use ./NAME",
        )
    if into is not None:
        return Copy(
            machine=into["machine"], sources=tuple(sources), target=into["path"], upload=True
        )
    found = [match for match in there if match is not None]
    if len(found) < len(sources) or len({match["machine"] for match in found}) != 1:
        raise UsageError(
            "one side must be NAME:PATH on a machine, the other a path on this host",
            hint="examples: armvm cp file NAME:dir   or   armvm cp NAME:file dir",
        )
    return Copy(
        machine=found[0]["machine"],
        sources=tuple(match["path"] for match in found),
        target=target,
        upload=False,
    )


def scp_words(
    wanted: Copy, told: Mapping[str, str], name: str, *, recursive: bool, quiet: bool
) -> list[str]:
    """Return scp's argument list. Paths are literal on both sides, except for a leading ``~/``.

    *told* are the options for ssh, and *name* is the host name that a login uses.
    """
    # The same host name as for a login, so that ssh selects the same identities.
    host = f"[{name}]"
    local = wanted.sources if wanted.upload else (wanted.target,)
    ours = [path if path.startswith("/") else f"./{path}" for path in local]
    # The client expands patterns only in downloads.
    theirs = (
        [wanted.target] if wanted.upload else [_PATTERN.sub(r"\\\1", one) for one in wanted.sources]
    )
    far = [f"{host}:{path}" for path in theirs]
    return [
        "scp",
        "-s",
        "-p",
        *(["-r"] if recursive else []),
        *(["-q"] if quiet else []),
        *options.words({**told, "SessionType": "subsystem", "RequestTTY": "no"}),
        "--",
        *(ours + far if wanted.upload else far + ours),
    ]


def check_folders(wanted: Copy) -> None:
    """Raise UsageError if a source is a directory, for a copy without ``--recursive``."""
    folders = [path for path in wanted.sources if wanted.upload and Path(path).is_dir()]
    if folders:
        raise needs_recursive(folders[0])


def needs_recursive(path: str) -> UsageError:
    """Return the error for a directory without -r."""
    return UsageError(f"{shown(path)} is a directory", hint="use -r to copy it with its contents")
