"""``image import --bootable``: an image for machines from the image of a board's card.

The image is untrusted. armvm reads its partitions and its file system itself, and programs of
the board only run in a user namespace, also if armvm runs as root.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from armvm.base.errors import ImageError, StorageError
from armvm.base.progress import Progress
from armvm.images import local_file
from armvm.images.board import BoardRoot, find_root, unreadable
from armvm.images.cache.named import reserved
from armvm.images.cache.store import Cache
from armvm.images.check.cpu import refuse_foreign_boot
from armvm.images.check.formats import read_head, recognise, refuse_foreign
from armvm.images.check.guest_disk import GuestDisk, Unreadable, opened
from armvm.images.digest import Hashes, check_digest
from armvm.images.fetch.decompress import Unpacker
from armvm.images.model import Verified
from armvm.provision.image import care, workspace
from armvm.provision.image.recipe_input import parse_image_size
from armvm.provision.rootfs import board, bootable, to_image
from armvm.provision.rootfs.unpack import unpack
from armvm.settings.names import shown
from armvm.settings.size import GIB
from armvm.settings.user_path import absolute
from armvm.usermode.programs.emulate import architecture_of
from armvm.usermode.rootfs import tree
from armvm.usermode.rootfs.build import Mode

_CHUNK = 1 << 20


def import_board(
    file: Path,
    name: str,
    *,
    sha256: str | None = None,
    partition: int | None = None,
    size: str | None = None,
    force: bool = False,
    progress: Progress,
    cache: Cache | None = None,
) -> care.ImportedImage:
    """Make ``local:NAME`` from a board's image, raw or packed with gzip, xz or zstd.

    *sha256* is the expected digest of the file, *size* the new disk's. Raises NotFound, Conflict,
    ConfigError, ImageError for another CPU, another distribution or an unreadable file system,
    HostileImage, DigestMismatch, BuildFailed, StorageError, MissingCapability. On failure nothing
    is left behind.
    """
    digest = care.check_import(name, sha256)
    disk_size = None if size is None else parse_image_size(size)
    file = absolute(file)
    cache = cache or Cache.default()
    told = file.name
    local_file.look_at_head(file)
    before = _mark(file)
    refuse_foreign(told)
    mode = Mode.here()
    with (
        reserved(cache, name, replace=force, progress=progress) as reference,
        workspace.workspace(workspace.SHARED, mode) as work,
    ):
        disk = _plain(file, work / "board.img", digest, progress)
        with opened(disk) as stream:
            found = _checked(disk, stream, file, partition)
            root = work / "root"
            unpack(found, root, told, progress)
        if _mark(file) != before:
            raise ImageError(
                f"{file} changed while armvm was reading it", hint="wait until it is complete"
            )
        if disk != file:
            disk.unlink()
        wanted = board.changes(root)
        system = board.make_ready(root, wanted, title=told, progress=progress)
        made = to_image.store(
            root,
            name,
            reference,
            system,
            size=disk_size,
            title=told,
            progress=progress,
            cache=cache,
        )
    _tell(wanted, progress)
    changes = care.BoardChanges(
        removed_kernels=list(wanted.kernels),
        masked_services=list(wanted.services),
        unused_mounts=list(wanted.mounts),
    )
    return care.ImportedImage(
        reference=reference,
        path=made.path,
        digest=made.digest,
        size=made.path.stat().st_size,
        verified=Verified.NOTHING,
        board=changes,
    )


def _tell(wanted: board.Changes, progress: Progress) -> None:
    if wanted.kernels:
        progress.say(f"removed the board's kernels: {', '.join(wanted.kernels)}")
    if wanted.services:
        progress.say(f"masked its first-boot services: {', '.join(wanted.services)}")
    if wanted.mounts:
        progress.say(f"commented out in /etc/fstab: {', '.join(wanted.mounts)}")
    progress.say(
        "the machine has the board's packages, users and settings, but not its hardware: GPIO, "
        "camera, Wi-Fi and the vendor's kernel and firmware do not work"
    )


def _mark(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _plain(file: Path, target: Path, digest: str | None, progress: Progress) -> Path:
    """Return the file, or *target* with its contents if it is packed. Raises DigestMismatch."""
    hashes = Hashes(digest)
    unpacker = Unpacker(
        target, name=file.name, room=lambda size: workspace.check_space(target.parent, size + GIB)
    )
    try:
        with (
            file.open("rb", buffering=0) as source,
            progress.task(f"reading {file.name}", total=file.stat().st_size) as task,
        ):
            done = 0
            while chunk := source.read(_CHUNK):
                hashes.update(chunk)
                unpacker.feed(chunk)
                done += len(chunk)
                task.update(done)
        packed = unpacker.finish() is not None
    except OSError as error:
        raise StorageError(
            f"cannot unpack {file}: {error.strerror or error}", hint="free some space in /var/tmp"
        ) from error
    finally:
        unpacker.close()
    check_digest(hashes.promised, digest, str(file))
    return target if packed else file


def _checked(disk: Path, stream: BinaryIO, file: Path, partition: int | None) -> BoardRoot:
    """Return the root file system on a disk, if it can become a machine's."""
    name = str(file)
    format = recognise(read_head(disk), name)
    refuse_foreign_boot(disk, format, name)
    # What is read is limited by the file system's own size.
    found = find_root(GuestDisk(stream, format, budget=1 << 60), name, partition)
    try:
        release = tree.release_fields(found.os_release)
        system = found.system
        heads = [system.read(one, 64) for path in tree.PROGRAMS if (one := system.find(path))]
        managed = system.find("usr/bin/dpkg") is not None
    except Unreadable as error:
        raise unreadable(name, found.partition, error) from error
    cpu = next(filter(None, map(architecture_of, heads)), None)
    if cpu != "aarch64":
        told = f"its programs are for {cpu}" if cpu else "no known program found"
        raise ImageError(
            f"{name} is a board image for another CPU: {told}; armvm needs arm64 (aarch64)",
            hint="use the 64-bit image of the board's system, if there is one: arm64 or aarch64",
        )
    if bootable.distro_in(release) is None or not managed:
        system_name = release.get("PRETTY_NAME") or release.get("ID") or "an unknown system"
        raise ImageError(
            f"{name} contains {shown(system_name)}; armvm can add a kernel only to Debian, Ubuntu "
            "and systems derived from them",
            hint="use an image of such a system, for example Raspberry Pi OS (64-bit) or Armbian",
        )
    return found
