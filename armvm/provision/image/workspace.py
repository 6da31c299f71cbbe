"""Where an image is built, and how what was built gets to its place; nothing is left of either."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from armvm.base.errors import ArmvmError, Conflict, NotFound, PermissionDenied, StorageError
from armvm.base.progress import size_text
from armvm.usermode.rootfs import build

#: What a build takes beside its output while it runs: files, raw disk, qcow2 [measured: 2.0].
SPACE = 3 << 30

#: How the directories of builds begin: what a killed one left is found by it.
PREFIX = ".armvm-build-"

#: Where ordinary users build: the ids of a user namespace cannot enter a private home directory.
SHARED = Path("/var/tmp")  # noqa: S108


def parent_of(output: Path, mode: build.Mode, *, beside: bool) -> Path:
    """Return where *output* is built: *beside* it if root asks for that, else in SHARED."""
    return output.parent if mode is build.Mode.ROOT and beside else SHARED


@contextlib.contextmanager
def workspace(parent: Path, mode: build.Mode, *, needed: int = SPACE) -> Iterator[Path]:
    """Make a directory in *parent* to build in, with *needed* bytes, and remove it in the end.

    Directories that killed builds of this user left there are removed first. Raises StorageError,
    PermissionDenied.
    """
    try:
        for where in {parent, SHARED}:
            sweep(where, mode)
        check_space(parent, needed)
        work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except PermissionError as error:
        raise PermissionDenied(
            f"cannot write to {error.filename or parent}",
            hint="choose a directory of your own",
        ) from error
    with _held(work):
        try:
            # Only passing through, for the namespace's root; names inside are no secret.
            work.chmod(0o711 if mode is build.Mode.ROOT else 0o755)
            yield work
        finally:
            _remove(work, mode)


def sweep(parent: Path, mode: build.Mode) -> list[Path]:
    """Remove what builds of this user left in *parent* when they were killed; return what it was.

    A build that still runs holds its directory (flock), which is left alone then. What cannot be
    removed is left for the next time.
    """
    removed = []
    for work in sorted(parent.glob(f"{PREFIX}*")):
        try:
            if work.is_symlink() or work.lstat().st_uid != os.geteuid():
                continue
            with _held(work):
                _remove(work, mode)
                removed.append(work)
        except (OSError, ArmvmError):
            continue
    return removed


def check_space(directory: Path, needed: int = SPACE) -> None:
    """Raise StorageError when *directory* has no room for *needed* bytes."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StorageError(
            f"a build needs {size_text(needed)} in {directory}, which has {size_text(free)} left",
            hint="make room there, or let XDG_CACHE_HOME point to a larger disk"
            if directory != SHARED
            else "make room there",
        )


def check_output(output: Path, *, force: bool) -> None:
    """See to it that the file *output* can be written, before anything is built.

    Raises Conflict when it exists and *force* is not given, NotFound, PermissionDenied.
    """
    if output.is_dir():
        raise Conflict(f"{output} is a directory", hint="name the file to write")
    if os.path.lexists(output) and not force:
        raise Conflict(f"{output} exists already", hint="--force overwrites it")
    if not output.parent.is_dir():
        raise NotFound(f"there is no directory {output.parent}", hint="make it first")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise PermissionDenied(
            f"cannot write to {output.parent}", hint="choose a directory of your own"
        )


def place(image: Path, output: Path, *, mode: int) -> None:
    """Move the finished *image* to *output* in one step, from another file system too.

    *mode* are its permissions. What a killed move left beside *output* is removed. Raises
    StorageError, PermissionDenied.
    """
    partial = output.with_name(f".{output.name[:200]}.{os.getpid()}.armvm-partial")
    try:
        for stale in output.parent.glob(f".{_escaped(output.name[:200])}.*.armvm-partial"):
            pid = re.search(r"\.([0-9]{1,9})\.armvm-partial\Z", stale.name)
            if pid and not Path(f"/proc/{pid[1]}").exists():
                stale.unlink(missing_ok=True)
        image.chmod(mode)
        try:
            image.replace(output)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # O_EXCL: nobody else's file or link is written through.
            with image.open("rb") as source, partial.open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                os.fsync(target.fileno())
            partial.chmod(mode)
            partial.replace(output)
    except PermissionError as error:
        raise PermissionDenied(
            f"{output} cannot be written: {error.strerror}",
            hint="choose a directory of your own",
        ) from error
    except OSError as error:
        raise StorageError(
            f"{output} cannot be written: {error.strerror or error}", hint="make room there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def lent(keyring: Path, work: Path) -> Path:
    """Return a copy of a keyring in *work* that the ids of a user namespace can read."""
    data = keyring.read_bytes()
    # apt tells the two forms apart by the name.
    copy = work / f"keyring.{'asc' if data.startswith(b'-----BEGIN') else 'gpg'}"
    copy.write_bytes(data)
    copy.chmod(0o644)
    return copy


def umask() -> int:
    """Return the process's umask, which cannot be read without setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _held(work: Path) -> Iterator[None]:
    """Hold a build's directory; raises BlockingIOError where another process holds it."""
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove(work: Path, mode: build.Mode) -> None:
    """Remove a build's directory; some of its files belong to ids of the user namespace."""
    build.remove(work / "root", mode=mode)
    shutil.rmtree(work, ignore_errors=True)


def _escaped(name: str) -> str:
    """Return a name for a glob pattern that finds it alone."""
    return re.sub(r"([*?[])", r"[\1]", name)
