"""Read a root file system from outside, without following links out of it.

Links are resolved inside it: ``/etc/passwd`` is the root file system's own, and ``..`` at the top
stays there. Only regular files are opened.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from armvm.base.errors import PermissionDenied
from armvm.usermode.programs.emulate import architecture_of

#: Maximum number of links in one name: the kernel's limit (path_resolution(7)).
MAX_LINKS = 40

#: Maximum number of bytes to read from a file.
MAX_READ = 1 << 20

#: Programs that show the architecture of a root file system, and its shell.
PROGRAMS = ("usr/bin/dpkg", "bin/sh", "usr/bin/env", "bin/busybox", "sbin/init")


def find(root: Path, name: str) -> Path | None:
    """Return the real path of the file *name* of the root file system *root*, or None.

    The path has no links below *root*. Raises PermissionDenied if this user may not read a
    directory.
    """
    here: list[str] = []
    todo = [part for part in reversed(name.split("/")) if part not in ("", ".")]
    links = 0
    try:
        while todo:
            part = todo.pop()
            if part == "..":
                here = here[:-1]
                continue
            path = root.joinpath(*here, part)
            if stat.S_ISLNK(path.lstat().st_mode):
                links += 1
                if links > MAX_LINKS:
                    return None
                target = str(path.readlink())
                here = [] if target.startswith("/") else here
                todo += [one for one in reversed(target.split("/")) if one not in ("", ".")]
            else:
                here.append(part)
        path = root.joinpath(*here)
        path.lstat()
    except PermissionError as error:
        raise PermissionDenied(
            f"cannot read {error.filename}: {error.strerror}",
            hint="run this as the user who created the root file system, or as root",
        ) from error
    except (OSError, ValueError):
        return None
    return path


def read(root: Path, name: str, limit: int = MAX_READ) -> bytes | None:
    """Return the first *limit* bytes of a regular file in *root*; None if it does not exist.

    Raises PermissionDenied.
    """
    path = find(root, name)
    if path is None or not stat.S_ISREG(path.lstat().st_mode):
        return None
    try:
        # If the file was replaced since, the new one cannot lead elsewhere or block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit)
    except PermissionError as error:
        raise PermissionDenied(
            f"cannot read {path}: {error.strerror}",
            hint="run this as the user who created the root file system, or as root",
        ) from error
    except OSError:
        return None


def architecture(root: Path) -> str | None:
    """Return QEMU's name of the architecture of a root file system's programs, or None.

    Raises PermissionDenied.
    """
    for name in PROGRAMS:
        header = read(root, name, 64)
        found = architecture_of(header) if header else None
        if found is not None:
            return found
    return None


def os_release(root: Path) -> dict[str, str]:
    """Return the fields of a root file system's os-release(5), without quotes; empty if none."""
    return release_fields(read(root, "etc/os-release", 65536) or b"")


def release_fields(data: bytes) -> dict[str, str]:
    """Return the fields of the contents of an os-release(5) file, without quotes."""
    fields = {}
    for line in data.decode(errors="replace").splitlines():
        key, equals, value = line.partition("=")
        if equals and key.isidentifier():
            fields[key] = value.strip().strip("\"'")
    return fields


def foreign_architectures(root: Path) -> set[str]:
    """Return the architectures whose packages a root file system's dpkg accepts.

    Empty if none was configured (its file exists only then), or dpkg is not installed.
    """
    data = read(root, "var/lib/dpkg/arch", 4096) or b""
    return {line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()}
