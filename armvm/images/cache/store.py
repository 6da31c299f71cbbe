"""The image cache: verified files named by their digest, each with a JSON sidecar.

::

    ROOT/sha256-<64 hex>.qcow2  .json      downloaded, or converted from raw; named as published
    ROOT/local/NAME-<12 hex>.qcow2  .json  built here; named by the digest of the recipe
    ROOT/.<key>.<random>.partial           being written; renamed when verified
    ROOT/.<key>.part  .part.json           a partial download; see part.py
    ROOT/.<key>.lock                       held (flock) while an image is downloaded or built

A file is in the cache once its sidecar exists. All of the cache can be recreated.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from armvm.base.errors import StorageError
from armvm.base.paths import cache_dir, private_dir, write_atomic
from armvm.base.progress import size_text
from armvm.images.cache.entry import Entry, dump, load, sidecar_of
from armvm.images.cache.files import acquire, copy_file, storage_errors
from armvm.images.check import qcow2_tables
from armvm.images.digest import hash_file
from armvm.images.fetch.part import Part
from armvm.images.model import FromImage, ImageSource, Verified
from armvm.images.reference import public_url
from armvm.settings.system import OperatingSystem

#: Free bytes to keep beside an image: for sidecars and the user's other files.
RESERVE = 64 << 20

_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}\Z")
_RECIPE = re.compile(r"[0-9a-f]{12,64}\Z")


def free_bytes(directory: Path) -> int:
    """Return the bytes that an ordinary user can still write below *directory*."""
    return shutil.disk_usage(directory).free


@dataclass(frozen=True)
class Cache:
    """The images below ``root``, a directory of the current user.

    ``free`` and ``clock`` (seconds since 1970) can be replaced in tests. Methods raise
    StorageError or PermissionDenied if the file system fails.
    """

    root: Path
    free: Callable[[Path], int] = free_bytes
    clock: Callable[[], float] = time.time

    @classmethod
    def default(cls) -> Cache:
        """Return the current user's cache."""
        return cls(cache_dir() / "images")

    def holds(self, path: Path) -> bool:
        """Return whether a file is in the cache. Such files may be replaced but never change."""
        return path.is_relative_to(self.root.absolute())

    def prepare(self) -> Path:
        """Create the directory, accessible only to its owner, and return its absolute path."""
        with storage_errors(self.root):
            root = private_dir(self.root.absolute())
            private_dir(root / "local")
            if root.stat().st_mode & 0o077 and root.stat().st_uid == os.geteuid():
                root.chmod(0o700)
            return root

    def find(self, digest: str) -> Entry | None:
        """Return the image published with a digest if it is in the cache, intact and unchanged.

        *digest* is ``sha256:HEX``, or the ``sha512:HEX`` that was published for it.
        """
        if not digest.startswith("sha256:"):
            found = [e for e in self.entries() if e.published == digest and not e.problem]
            return self.sound(found[0]) if found else None
        entry = self.sound(load(self._path(digest)))
        return entry if entry and entry.digest == digest else None

    def store(
        self, file: Path, *, source: FromImage, digest: str, content: str | None = None
    ) -> Entry:
        """Store a verified qcow2 *file* (one of our partial() files) under its published *digest*.

        *content* is the file's own digest if it differs, because the image was unpacked; "" if it
        is not known yet, because the image was converted. Both digests are ``sha256:HEX``.
        """
        entry = Entry(
            path=self._path(digest),
            reference=source.reference,
            location=public_url(source.location),
            digest=digest,
            system=source.system,
            serial=source.serial,
            content=digest if content is None else content,
            published=source.digest if (source.digest or "").startswith("sha512:") else None,
            verified=source.verified,
            signer=source.signer,
        )
        return self._admit(file, entry)

    def vouch(self, entry: Entry, source: FromImage) -> Entry:
        """Record that *source* verified an entry's digest, unless a signature is recorded."""
        if source.verified is not Verified.SIGNATURE or entry.verified is Verified.SIGNATURE:
            return entry
        return self.record(entry, source.verified, source.signer)

    def record(self, entry: Entry, verified: Verified, signer: str | None = None) -> Entry:
        """Record how an entry's digest was verified."""
        done = replace(entry, verified=verified, signer=signer)
        with storage_errors(entry.sidecar):
            write_atomic(done.sidecar, dump(done))
        return done

    def local_path(self, name: str, recipe: str) -> Path:
        """Return the path of the image *name*, built from the recipe with that digest."""
        if not _NAME.match(name) or not _RECIPE.match(recipe):
            raise ValueError(f"not a local image's name and recipe digest: {name!r}, {recipe!r}")
        return self.prepare() / "local" / f"{name}-{recipe[:12]}.qcow2"

    def find_local(self, name: str, recipe: str | None = None) -> Entry | None:
        """Return the image *name* built here from that recipe (None: the newest), or None."""
        found = [e for e in self.entries() if e.name == name and recipe in (None, e.recipe)]
        for entry in sorted(found, key=lambda e: e.stored, reverse=True):
            if sound := self.sound(entry):
                return sound
        return None

    def store_local(
        self,
        file: Path,
        *,
        name: str,
        recipe: str,
        system: OperatingSystem | None = None,
        verified: Verified = Verified.BUILT,
        digest: str = "",
        content: str | None = None,
    ) -> Entry:
        """Store a built qcow2 *file* (a partial() file is simply renamed).

        The caller holds lock(f"local:{name}"), as obtain() does when it calls a builder.
        *recipe* is the digest of all that the build depends on, 12 to 64 hex digits. For an
        imported file, *verified* records how it was verified, *digest* is the digest at its
        source, and *content* its own, as far as known. Raises HostileImage if the file is not a
        standalone qcow2 image.
        """
        target = self.local_path(name, recipe)
        qcow2_tables.check(file, name=f"local:{name}")
        entry = Entry(
            path=target,
            reference=f"local:{name}",
            location=f"local:{name}",
            digest=digest,
            content=content or "",
            system=system,
            verified=verified,
            name=name,
            recipe=recipe,
        )
        if file.absolute().parent == self.prepare():
            return self._admit(file, entry)
        with self.partial(f"local:{name}") as partial, storage_errors(partial):
            self.check_room(file.stat().st_size)
            copy_file(file, partial)
            stored = self._admit(partial, entry)
            file.unlink()
        return stored

    def derived(
        self,
        source: ImageSource,
        *,
        name: str,
        recipe: str,
        make: Callable[[Path], None],
        on_wait: Callable[[], None],
    ) -> Entry:
        """Return the image *name* that a recipe makes of *source*'s; *make* writes it if missing.

        *recipe* and *on_wait* are as for store_local() and lock(). It is at most as verified as
        *source*. Raises what *make* raises, and HostileImage.
        """
        key = f"local:{name}"
        with self.lock(key, on_wait=on_wait):
            entry = self.find_local(name, recipe)
            if entry is None:
                signed = source.verified is Verified.SIGNATURE
                with self.partial(key) as partial:
                    make(partial)
                    entry = self.store_local(
                        partial,
                        name=name,
                        recipe=recipe,
                        system=source.system,
                        verified=Verified.BUILT if signed else source.verified,
                    )
            self.touch(entry)
        return entry

    def entries(self) -> list[Entry]:
        """Return all entries, newest first, including unusable ones (with a ``problem``)."""
        root = self.prepare()
        with storage_errors(root):
            files = [p for d in (root, root / "local") for p in d.iterdir() if p.name[0] != "."]
        images = {p for p in files if p.suffix == ".qcow2"}
        images |= {
            p.with_suffix(".qcow2")
            for p in files
            if p.suffix == ".json" and (p.parent.name == "local" or p.name.startswith("sha256-"))
        }
        return sorted(map(load, images), key=lambda e: (-e.stored, e.path.name))

    def remove(self, entry: Entry) -> None:
        """Remove an entry's files; missing files are ignored."""
        with storage_errors(entry.path):
            entry.sidecar.unlink(missing_ok=True)  # first: without it, the image is not used
            entry.path.unlink(missing_ok=True)

    def touch(self, entry: Entry) -> None:
        """Record that an entry was used now, as its sidecar's modification time."""
        with storage_errors(entry.sidecar):
            os.utime(entry.sidecar, (self.clock(), self.clock()))

    def check_room(self, size: int) -> None:
        """Raise StorageError if *size* more bytes do not fit."""
        root = self.prepare()
        free = self.free(root)
        if size + RESERVE > free:
            raise StorageError(
                f"the image needs {size_text(size)}, but {root} has {size_text(free)} free",
                hint="free space with: armvm image rm IMAGE; XDG_CACHE_HOME sets another directory",
            )

    @contextmanager
    def lock(
        self,
        key: str,
        *,
        on_wait: Callable[[], None],
        watch: Callable[[], None] | None = None,
    ) -> Iterator[None]:
        """Hold the lock for *key*, exclusively among this user's processes.

        *on_wait* is called once if another process holds it, then *watch* repeatedly. Partial
        files that a killed holder left for *key* are removed, so call partial(key) only under
        lock(key); a part(key) stays. A process that locks the same key twice waits
        forever.
        """
        path = self.prepare() / f".{_short(key)}.lock"
        with storage_errors(path):
            descriptor = acquire(path, on_wait, watch=watch)
        try:
            for stale in path.parent.glob(f".{_short(key)}.*.partial"):
                stale.unlink(missing_ok=True)
            yield
        finally:
            # Before the lock is released: waiting processes see that the name is gone, and retry.
            path.unlink(missing_ok=True)
            os.close(descriptor)

    @contextmanager
    def partial(self, key: str) -> Iterator[Path]:
        """Create an empty private file to write to; it is removed unless it was stored."""
        path = self.prepare() / f".{_short(key)}.{secrets.token_hex(8)}.partial"
        try:
            with storage_errors(path):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            yield path
        finally:
            path.unlink(missing_ok=True)

    def part(self, key: str) -> Part:
        """Return the partial download for *key*; the caller holds lock(key)."""
        return Part(self.prepare() / f".{_short(key)}.part")

    def _path(self, digest: str) -> Path:
        return self.prepare() / f"{digest.replace(':', '-')}.qcow2"

    def _admit(self, file: Path, entry: Entry) -> Entry:
        """Rename a partial file to its final name and write its sidecar."""
        with storage_errors(entry.path):
            content = entry.content or hash_file(file, sync=True)
            status = file.stat()
            done = replace(
                entry,
                digest=entry.digest or content,
                content=content,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                stored=self.clock(),
                used=self.clock(),
            )
            # If armvm is killed in between, an older sidecar must not describe the new file.
            done.sidecar.unlink(missing_ok=True)
            file.replace(done.path)
            write_atomic(done.sidecar, dump(done))
        return done

    def sound(self, entry: Entry) -> Entry | None:
        """Return the entry if its file is unchanged; a file with a new date is hashed again."""
        if entry.problem:
            return None
        with storage_errors(entry.path):
            try:
                status = entry.path.stat()
            except FileNotFoundError:  # another process removed it
                return None
            if status.st_size != entry.size:
                return None
            if status.st_mtime_ns != entry.mtime_ns:
                if hash_file(entry.path) != entry.content:
                    return None
                entry = replace(entry, mtime_ns=status.st_mtime_ns)
                write_atomic(sidecar_of(entry.path), dump(entry))
        return entry


def _short(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:24]
