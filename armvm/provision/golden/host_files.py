"""Facts about QEMU and the firmware on this host, cached by file.

Asking QEMU for its version starts a process, and a firmware has 64 MiB to hash. Both take longer
than the rest of choosing a golden, so the answers are kept in the cache directory, each with the
path, size, inode and times of change of its file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from armvm.base import process
from armvm.base.errors import CommandFailed, MissingCapability
from armvm.base.paths import cache_dir, private_dir, write_atomic
from armvm.images.digest import hash_file

#: The file in the cache directory.
MEMORY = "host-files.json"
#: Maximum number of remembered files.
_REMEMBERED = 64
#: Seconds for QEMU to print its version.
_PATIENCE = 20.0
#: Such as ``QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)``.
_VERSION = re.compile(r"QEMU emulator version (\S+)(?: \((.*)\))?")


def qemu_version(emulator: str) -> str | None:
    """Return the version of a QEMU on this host, in the form of `memory.route.qemu_version`.

    None if it cannot be run.
    """
    return _remembered(f"version {emulator}", emulator, _ask_version)


def digest(path: str) -> str | None:
    """Return the ``sha256:HEX`` of a file on this host; None if it cannot be read."""
    return _remembered(f"digest {path}", path, lambda one: hash_file(Path(one)))


def _ask_version(emulator: str) -> str | None:
    try:
        told = process.run([emulator, "--version"], timeout=_PATIENCE).text
    except (CommandFailed, MissingCapability):
        return None
    found = _VERSION.match(told)
    return f"{found[1]} {found[2] or ''}".strip() if found else None


def _remembered(key: str, path: str, ask: Callable[[str], str | None]) -> str | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - follows links, as QEMU does
        mark = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        memory = cache_dir() / MEMORY
        known = _read(memory)
        entry = known.get(key)
        if isinstance(entry, list) and entry[:-1] == mark and isinstance(entry[-1], str):
            return entry[-1]
        answer = ask(path)
    except OSError:
        return None
    if answer is not None:
        known[key] = [*mark, answer]
        kept = dict(list(known.items())[-_REMEMBERED:])
        with contextlib.suppress(OSError):  # without a cache, the next command asks again
            write_atomic(private_dir(memory.parent) / MEMORY, json.dumps(kept).encode())
    return answer


def _read(memory: Path) -> dict[str, Any]:
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
