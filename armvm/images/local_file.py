"""An image that is a file on this host already: looked at, hashed, converted if it is raw."""

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
from armvm.images.check.qcow2 import MAX_VIRTUAL_SIZE
from armvm.images.digest import check_digest, hashes_of

#: Seconds that converting a raw image may take.
CONVERT_TIMEOUT = 1800.0

#: What qemu-img may use for it. It was seen to need 0.6 to 1 GiB of address space, nearly all of it
#: reserved for the stacks (8 MiB each) of its threads, of which there are up to 64.
CONVERT_LIMITS = Limits(memory=2 << 30, cpu=1800)

#: How many digests of users' files are remembered.
REMEMBERED = 256


def look(path: Path) -> tuple[DiskFormat, int]:
    """Return a file's disk format and size in bytes.

    Raises NotFound, ConfigError (a directory, a device), PermissionDenied, and HostileImage
    when it is no disk image, or too large to be read to its end (a sparse file).
    """
    try:
        status = path.stat()
        # Before opening: a FIFO would block, a device may do anything.
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(
                f"the image {path} is a directory", hint="name the image file inside it"
            )
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(
                f"the image {path} is no ordinary file", hint="copy a device into a file first"
            )
        format = recognise(read_head(path), str(path))
        if status.st_size > MAX_VIRTUAL_SIZE:
            raise HostileImage(
                f"{path} cannot be used: it has {size_text(status.st_size)}, more than "
                f"{size_text(MAX_VIRTUAL_SIZE)}",
                hint="use a smaller disk image",
            )
        return format, status.st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"there is no image file {path}", hint="check the path; armvm image list shows others"
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"the image {path} cannot be read: {error.strerror}",
            hint="make it readable for this user",
        ) from error
    except (OSError, ValueError) as error:  # too long a name, a loop of links, a broken disk
        raise ImageError(f"the image {path} cannot be read: {error}") from error


def examine(path: Path) -> tuple[DiskFormat, int, int]:
    """Look at all of a file that can be judged without reading its data.

    Returns its disk format, its size and the guest disk's, in bytes. Raises what look() does, and
    ImageError for a disk that boots other CPUs.
    """
    format, size = look(path)
    try:
        virtual = qcow2_tables.check(path).virtual_size if format is DiskFormat.QCOW2 else size
        refuse_foreign_boot(path, format, str(path))
    except OSError as error:
        raise ImageError(f"the image {path} cannot be read: {error.strerror or error}") from error
    return format, size, virtual


def digest_of(path: Path, promised: str | None, *, cache: Cache, progress: Progress) -> str:
    """Return a file's ``sha256:HEX``, remembered by its path, size and time of change.

    Raises DigestMismatch when another digest was *promised*.
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
        raise ImageError(f"the image {path} cannot be read: {error.strerror or error}") from error
    if _mark(path) != before:
        raise ImageError(
            f"the image {path} changed while it was read", hint="wait until it is complete"
        )
    # A file changed within the clock's grain could change again and keep its time.
    if time.time_ns() - before[1] > 2_000_000_000:
        known[str(path)] = [*before, digest]
        kept = dict(list(known.items())[-REMEMBERED:])
        with storage_errors(memory):
            write_atomic(memory, json.dumps(kept).encode())
    check_digest(hashes.promised, promised, str(path))
    return digest


def convert_raw(raw: Path, target: Path, *, label: str, cache: Cache, progress: Progress) -> None:
    """Write the raw image *raw* to *target* as qcow2.

    The format is named to qemu-img, so it does not guess: a raw image that begins like another
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
                f"the raw image {raw} could not be converted to qcow2",
                detail=error.detail or error.message,
            ) from error


def _mark(path: Path) -> list[int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - follows links, as open() does
    except OSError as error:
        raise ImageError(f"the image {path} cannot be read: {error.strerror}") from error
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def _recall(memory: Path) -> dict[str, list[int | str]]:
    """Return what is remembered; nonsense is forgotten."""
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
