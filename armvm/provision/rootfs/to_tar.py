"""``rootfs to-tar``: writes a root file system as an archive for ``docker import``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from armvm.base import process
from armvm.base.progress import Progress
from armvm.provision.image import workspace
from armvm.settings.user_path import absolute
from armvm.usermode.rootfs import enter

#: GNU tar's options: the POSIX format, which has no size limits and keeps extended attributes,
#: without access times and tar's process id, which would differ from run to run.
OPTIONS = (
    *("--create", "--format=posix", "--pax-option=delete=atime,delete=ctime"),
    "--pax-option=exthdr.name=%d/PaxHeaders/%f",
    *("--numeric-owner", "--xattrs", "--xattrs-include=*", "--no-recursion"),
    *("--null", "--verbatim-files-from", "--files-from=-"),
)


def to_tar(root: Path, output: Path | None, *, force: bool, progress: Progress) -> int:
    """Write *root* as a tar archive to *output*, or to standard output; return its size in bytes.

    Owners are the numeric ids that root inside *root* sees. The archive keeps extended attributes
    and leaves out sockets, device files and file systems mounted below *root*. The order of the
    files is always the same. Raises the errors of enter.check_root(), Conflict if the file exists
    and *force* is not given, CommandFailed, PermissionDenied.
    """
    real = enter.check_root(root)
    inside = enter.as_owner(real)
    with progress.task(f"archiving {real}") as task:
        task.update(text="listing files")
        found = process.run(listing(real, inside)).stdout
        names = sorted(name for name in found.split(b"\0") if name)
        argv = [*inside, "tar", f"--directory={real}", *OPTIONS]
        task.update(text="writing")

        def feed(stream: IO[bytes]) -> None:
            for name in names:
                stream.write(name + b"\0")

        if output is None:
            with os.fdopen(os.dup(1), "wb") as stdout:
                return process.stream(argv, feed, lambda data: _copied(data, stdout))
        output = absolute(output)
        workspace.check_output(output, force=force)
        partial = output.with_name(f".{output.name[:200]}.{os.getpid()}.armvm-partial")
        try:
            with partial.open("xb") as file:
                size = process.stream(argv, feed, lambda data: _copied(data, file))
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    return size


def listing(root: Path, inside: Sequence[str]) -> list[str | Path]:
    """Return the command that lists the archive's files, each name terminated by a NUL."""
    return [
        *inside,
        *("find", str(root), "-xdev", "-mindepth", "1"),
        *("-not", "-type", "s", "-not", "-type", "b", "-not", "-type", "c", "-printf", "./%P\\0"),
    ]


def _copied(data: IO[bytes], target: IO[bytes]) -> int:
    """Copy a stream to its end; return its size in bytes."""
    size = 0
    while part := data.read(1 << 20):
        target.write(part)
        size += len(part)
    return size
