"""Extract the root file system of a disk into a directory, for programs in a user namespace.

The disk is untrusted: armvm reads the file system itself, and the files belong to the ids of a user
namespace, also if armvm runs as root.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from armvm.base import process
from armvm.base.errors import CommandFailed, MissingCapability, StorageError
from armvm.base.progress import Progress
from armvm.images import ext4_tar
from armvm.images.board import BoardRoot, unreadable
from armvm.images.check.guest_disk import Unreadable
from armvm.provision.image import workspace
from armvm.settings.size import GIB
from armvm.usermode.rootfs import enter, requirements

#: The first id of the files' owners while root works on them, in place of 0: the last 65,536 of the
#: range that systemd reserves for containers (its docs/UIDS-GIDS.md).
_IDS = 0x6FFF0000


def unpack(found: BoardRoot, root: Path, name: str, progress: Progress) -> None:
    """Write the files of a root file system to the new directory *root*.

    *name* is the disk's, for messages. Raises ImageError for a file system that cannot be read,
    MissingCapability without user namespaces, StorageError.
    """
    used = found.system.used
    workspace.check_space(root.parent, 2 * used + GIB)
    root.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(root, _IDS, _IDS)
    else:
        # The namespace that the directory's owner gets has the subordinate ids from 1.
        process.run([*enter.as_owner(root), "chown", "1:1", root])
    inside = enter.as_owner(root)
    _check_namespace(inside)
    argv = [*inside, "env", "LC_ALL=C.UTF-8", "tar", f"--directory={root}", *ext4_tar.OPTIONS]
    with progress.task(f"extracting the files of {name}", total=used) as task:

        def feed(stream: IO[bytes]) -> None:
            ext4_tar.write(found.system, stream, lambda done: task.update(min(done, used)))

        try:
            process.stream(argv, feed, lambda output: output.read())
        except Unreadable as error:
            raise unreadable(name, found.partition, error) from error
        except CommandFailed as error:
            raise StorageError(
                f"cannot extract the files of {name}",
                detail=error.detail,
                hint="free some space in /var/tmp",
            ) from error


def _check_namespace(inside: Sequence[str]) -> None:
    """Raise MissingCapability if the host allows no user namespaces, not even root's."""
    try:
        process.run([*inside, "true"])
    except CommandFailed as error:
        closed = requirements.closed_by(Path("/proc"))
        cause = f" ({'; '.join(what for what, _ in closed)})" if closed else ""
        raise MissingCapability(
            f"cannot create a user namespace on this host{cause}",
            detail=error.detail,
            hint="; ".join(command for _, command in closed) or "run it outside of a container",
        ) from error
