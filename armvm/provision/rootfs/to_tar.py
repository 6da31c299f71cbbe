"""``rootfs to-tar``: a root file system as an archive that ``docker import`` takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from armvm.base import process
from armvm.base.progress import Progress
from armvm.provision.image import workspace
from armvm.usermode.rootfs import enter

#: How GNU tar writes it: POSIX's form, which has no limits and keeps extended attributes, with
#: nothing in it that differs from run to run. Access times and tar's process id would.
OPTIONS = (
    *("--create", "--format=posix", "--pax-option=delete=atime,delete=ctime"),
    "--pax-option=exthdr.name=%d/PaxHeaders/%f",
    *("--numeric-owner", "--xattrs", "--xattrs-include=*", "--no-recursion"),
    *("--null", "--verbatim-files-from", "--files-from=-"),
)


def to_tar(root: Path, output: Path | None, *, force: bool, progress: Progress) -> int:
    """Write *root* as a tar archive to the file *output*, or to standard output without one.

    Owners are numbers as the root file system's own root sees them; extended attributes are
    kept; sockets and device files are left out, and so is what is mounted below *root*. The order
    of the files is always the same. Returns the archive's bytes. Raises what enter.check_root()
    raises, Conflict for a file that is there and no *force*, CommandFailed, PermissionDenied.
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
        output = output.expanduser().absolute()
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
    """Return the command that lists what goes into the archive, each name ended by a NUL."""
    return [
        *inside,
        *("find", str(root), "-xdev", "-mindepth", "1"),
        *("-not", "-type", "s", "-not", "-type", "b", "-not", "-type", "c", "-printf", "./%P\\0"),
    ]


def _copied(data: IO[bytes], target: IO[bytes]) -> int:
    """Copy a stream to its end; return its bytes."""
    size = 0
    while part := data.read(1 << 20):
        target.write(part)
        size += len(part)
    return size
