"""Use an image file on this host: check it, hash it, convert it if it is raw."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

from armvm.base import process
from armvm.base.errors import (
    CommandFailed,
    ConfigError,
    HostileImage,
    ImageError,
    NotFound,
    PermissionDenied,
    StorageError,
)
from armvm.base.limits import Limits
from armvm.base.paths import write_atomic
from armvm.base.progress import Progress, size_text
from armvm.images.cache.files import storage_errors
from armvm.images.cache.store import Cache
from armvm.images.check import qcow2_tables
from armvm.images.check.cpu import refuse_foreign_boot
from armvm.images.check.formats import DiskFormat, read_head, recognise
from armvm.images.digest import check_digest, hashes_of
from armvm.settings.size import MAX_DISK

#: Time limit for converting a raw image, in seconds.
CONVERT_TIMEOUT = 1800.0

#: Limits for qemu-img. It needs 0.6 to 1 GiB of address space, nearly all of it reserved for the
#: stacks (8 MiB each) of its up to 64 threads.
CONVERT_LIMITS = Limits(memory=2 << 30, cpu=1800)

#: Maximum number of remembered digests of users' files.
REMEMBERED = 256


def look(path: Path) -> tuple[DiskFormat, int]:
    """Return a file's disk format and size in bytes.

    Raises NotFound, ConfigError (a directory, a device), PermissionDenied, and HostileImage
    if it is not a disk image, or too large to read to its end (a sparse file).
    """
    size, head = look_at_head(path)
    return recognise(head, str(path)), size


def look_at_head(path: Path) -> tuple[int, bytes]:
    """Return the size in bytes and the head of a file that may be packed, or no disk image.

    Raises what look() does.
    """
    try:
        status = path.stat()
        # Before opening: a FIFO would block, and opening a device can have side effects.
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(
                f"the image {path} is a directory", hint="use the image file inside it"
            )
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(
                f"the image {path} is not a regular file", hint="copy a device to a file first"
            )
        head = read_head(path)
        if status.st_size > MAX_DISK:
            raise HostileImage(
                f"{path} cannot be used: its size {size_text(status.st_size)} exceeds "
                f"{size_text(MAX_DISK)}",
                hint="use a smaller disk image",
            )
        return status.st_size, head
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"image file {path} not found",
            hint="check the path, or list images with: armvm image list",
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot read {path}",
            hint="make it readable for your user",
        ) from error
    except (OSError, ValueError) as error:  # name too long, loop of links, disk error
        raise ImageError(f"cannot read the image {path}: {error}") from error


def examine(path: Path) -> tuple[DiskFormat, int, int]:
    """Check everything about a file that can be checked without reading its data.

    Returns its disk format, its size and the guest disk's, in bytes. Raises what look() does, and
    ImageError for a disk that boots on other CPUs.
    """
    format, size = look(path)
    try:
        virtual = qcow2_tables.check(path).virtual_size if format is DiskFormat.QCOW2 else size
        refuse_foreign_boot(path, format, str(path))
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror or error}") from error
    return format, size, virtual


def digest_of(path: Path, promised: str | None, *, cache: Cache, progress: Progress) -> str:
    """Return a file's ``sha256:HEX``, cached by its path, size and modification time.

    Raises DigestMismatch if the *promised* digest differs.
    """
    memory = cache.prepare() / "digests.json"
    before = _mark(path)
    known = _recall(memory)
    if known.get(str(path), [])[:-1] == before and not (promised or "").startswith("sha512:"):
        digest = str(known[str(path)][-1])
        check_digest(digest, promised, str(path))
        return digest
    try:
        with progress.task(f"hashing {path.name}", total=before[0]) as task:
            hashes = hashes_of(path, promised, told=task.update)
            digest = hashes.sha256
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror or error}") from error
    if _mark(path) != before:
        raise ImageError(
            f"the image {path} changed while armvm was reading it", hint="wait until it is complete"
        )
    # A file changed within the clock's resolution could change again and keep its time.
    if time.time_ns() - before[1] > 2_000_000_000:
        known[str(path)] = [*before, digest]
        kept = dict(list(known.items())[-REMEMBERED:])
        with storage_errors(memory):
            write_atomic(memory, json.dumps(kept).encode())
    check_digest(hashes.promised, promised, str(path))
    return digest


def convert_raw(raw: Path, target: Path, *, label: str, cache: Cache, progress: Progress) -> None:
    """Write the raw image *raw* to *target* as qcow2.

    qemu-img gets the format explicitly and does not guess: a raw image that starts like another
    format stays raw. Raises MissingCapability, StorageError and ImageError.
    """
    cache.check_room(raw.stat().st_blocks * 512)
    with progress.task(label):
        try:
            process.run(
                ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw.absolute(), target],
                timeout=CONVERT_TIMEOUT,
                limits=CONVERT_LIMITS,
            )
        except CommandFailed as error:
            kind = StorageError if "No space left" in (error.detail or "") else ImageError
            raise kind(
                f"cannot convert the raw image {raw} to qcow2",
                detail=error.detail or error.message,
            ) from error


def _mark(path: Path) -> list[int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - follows links, as open() does
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror}") from error
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def _recall(memory: Path) -> dict[str, list[int | str]]:
    """Return the remembered digests; an invalid file counts as empty."""
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {
        path: entry
        for path, entry in known.items()
        if isinstance(entry, list) and len(entry) == 5 and isinstance(entry[-1], str)
    }
