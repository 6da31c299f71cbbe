"""Blobs from registries, cached by their digest; an interrupted download resumes.

::

    ROOT/sha256-<64 hex>          a verified blob
    ROOT/.sha256-<64 hex>.part    the first bytes of one, unverified
    ROOT/.sha256-<64 hex>.lock    held (flock) while it is downloaded
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from armvm.base.errors import FetchFailed, HostileImage, StorageError, Unreachable
from armvm.base.progress import Progress, size_text
from armvm.images.cache.files import cache_directory, held, storage_errors
from armvm.images.oci.document import MAX_DOCUMENT, Descriptor, mismatch
from armvm.images.oci.registry import Refused, Registry

#: Free bytes to keep.
RESERVE = 64 << 20
#: Seconds after which an unused blob is removed.
KEPT = 30 * 86400.0
#: Attempts of a download that makes no progress.
ATTEMPTS = 4
_COPY = 1 << 20


@dataclass(frozen=True)
class Blobs:
    """The cached blobs of a registry's artifact: what an import reads."""

    registry: Registry
    progress: Progress

    @property
    def name(self) -> str:
        """The artifact's reference."""
        return self.registry.name

    def document(self, blob: Descriptor) -> bytes:
        """Return a small blob, verified. Raises HostileImage if it is not small."""
        if blob.size > MAX_DOCUMENT:
            raise HostileImage(f"{self.name} cannot be used: a document in it is too large")
        return self.path(blob).read_bytes()

    def open(self, blob: Descriptor) -> BinaryIO:
        """Return a blob's bytes."""
        return self.path(blob).open("rb")

    def path(self, blob: Descriptor) -> Path:
        """Return the file with a blob, which is downloaded first if necessary, verified."""
        root = directory()
        path = root / blob.digest.replace(":", "-")
        with held(root / f".{path.name}.lock", self._waits):
            if path.exists() and path.stat().st_size == blob.size:
                os.utime(path)
                return path
            part = root / f".{path.name}.part"
            self._download(blob, part)
            part.replace(path)
        return path

    def forget(self, blob: Descriptor) -> None:
        """Remove a blob that is not needed any more."""
        self.path(blob).unlink(missing_ok=True)

    def _waits(self) -> None:
        self.progress.say(f"waiting for another armvm process that is downloading {self.name}")

    def _download(self, blob: Descriptor, part: Path) -> None:
        shown = (blob.title or "the description").removesuffix(".zst")
        label = f"downloading {shown} from {self.registry.reference.host}"
        tries = 0
        with self.progress.task(label, total=blob.size) as task:
            while True:
                before = part.stat().st_size if part.exists() else 0
                try:
                    self._continue(blob, part, before, task.update)
                    return
                except (FetchFailed, Unreachable) as error:
                    progressed = part.exists() and part.stat().st_size > before
                    tries = 0 if progressed else tries + 1
                    if tries >= ATTEMPTS or isinstance(error, Refused):
                        with contextlib.suppress(OSError):
                            if part.stat().st_size == 0:
                                part.unlink()
                        raise
                    time.sleep(1 << tries)

    def _continue(
        self, blob: Descriptor, part: Path, start: int, told: Callable[[int], None]
    ) -> None:
        """Download the rest of a blob after *start* bytes, and verify all of it."""
        free = shutil.disk_usage(part.parent).free
        if blob.size - start + RESERVE > free:
            raise StorageError(
                f"{blob.title or 'a part'} needs {size_text(blob.size)}, but {part.parent} has "
                f"{size_text(free)} free",
                hint="free space there; XDG_CACHE_HOME sets another directory",
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with storage_errors(part), os.fdopen(os.open(part, flags, 0o600), "r+b") as file:
            digest, done = hashlib.sha256(), 0
            if start < blob.size:
                with self.registry.blob(blob, start) as (begins, pieces):
                    if begins != start:
                        file.truncate(0)
                    digest, done = _hashed(file)
                    for piece in pieces:
                        if done + len(piece) > blob.size:
                            break
                        file.write(piece)
                        digest.update(piece)
                        done += len(piece)
                        told(done)
            else:
                digest, done = _hashed(file)
            file.flush()
            os.fsync(file.fileno())
        found = f"sha256:{digest.hexdigest()}"
        if done != blob.size or found != blob.digest:
            part.unlink()
            raise mismatch(blob, found, self.name)


def directory() -> Path:
    """Return the directory of cached blobs."""
    return cache_directory("blobs")


def prune() -> None:
    """Remove blobs that were not used for a while."""
    limit = time.time() - KEPT
    for path in directory().iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()


def _hashed(file: BinaryIO) -> tuple[Any, int]:
    digest, done = hashlib.sha256(), 0
    file.seek(0)
    while piece := file.read(_COPY):
        digest.update(piece)
        done += len(piece)
    return digest, done
