"""Adds one line at the top of a user's configuration file, and removes it again.

The rest of the file stays the same byte for byte, and so do its mode, its owner and a symbolic
link that leads to it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from armvm.base.errors import PermissionDenied
from armvm.base.paths import private_dir


def include(path: Path, line: str) -> bool:
    """Add *line* at the top of a file, which may not exist yet; return whether it was missing."""
    before = _read(path)
    if line.encode() in (before or b"").splitlines():
        return False
    try:
        private_dir(path.parent)
    except OSError as error:
        raise _refused(path, "write", error) from error
    _replace(path, line.encode() + b"\n" + (before or b""))
    return True


def exclude(path: Path, line: str) -> bool:
    """Remove *line* from a file, and the file if it is then empty; return whether it was there."""
    before = _read(path)
    if before is None:
        return False
    lines = before.splitlines(keepends=True)
    kept = [one for one in lines if one.rstrip(b"\r\n") != line.encode()]
    if len(kept) == len(lines):
        return False
    if not kept and not path.is_symlink():
        path.unlink()
    else:
        _replace(path, b"".join(kept))
    return True


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path, "read", error) from error


def _replace(path: Path, data: bytes) -> None:
    """Replace a file, or the target of a symbolic link, in one step."""
    real = Path(os.path.realpath(path))
    partial = real.with_name(f".{real.name}.{secrets.token_hex(4)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                if real.exists():
                    status = real.stat()
                    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(file.fileno(), status.st_uid, status.st_gid)
                    os.fchmod(file.fileno(), status.st_mode & 0o7777)
            partial.replace(real)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, "write", error) from error


def _refused(path: Path, what: str, error: OSError) -> PermissionDenied:
    return PermissionDenied(
        f"cannot {what} {path}",
        detail=str(error),
        hint="to work without this file: armvm ssh-config NAME > FILE, then ssh -F FILE NAME",
    )
