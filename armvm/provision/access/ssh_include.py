"""A line at the top of a configuration file that is the user's: added once, and taken out whole.

All else in the file stays as it is, byte for byte; so do its mode, its owner, and a symbolic
link that it is reached by.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from armvm.base.errors import PermissionDenied
from armvm.base.paths import private_dir


def include(path: Path, line: str) -> bool:
    """Put *line* at the top of a file, which is made if need be; tell whether it was not there."""
    before = _read(path)
    if line.encode() in (before or b"").splitlines():
        return False
    try:
        private_dir(path.parent)
    except OSError as error:
        raise _refused(path, "written", error) from error
    _replace(path, line.encode() + b"\n" + (before or b""))
    return True


def exclude(path: Path, line: str) -> bool:
    """Take *line* out of a file; tell whether it was there. A file that is then empty goes."""
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
    """Write a file anew where it really lies, so that nobody sees half of it."""
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
        raise _refused(path, "written", error) from error


def _refused(path: Path, what: str, error: OSError) -> PermissionDenied:
    return PermissionDenied(
        f"{path} cannot be {what}",
        detail=str(error),
        hint="without it: armvm ssh-config NAME > FILE, then ssh -F FILE NAME",
    )
