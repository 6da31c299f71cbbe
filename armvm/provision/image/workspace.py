"""Temporary directories to build images in, and moving the result into place; cleans up after."""

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

#: Bytes that a build uses in addition to its output: files, raw disk, qcow2 [measured: 2.0 GiB].
SPACE = 3 << 30

#: Prefix of the builds' directories. It finds those that killed builds left behind.
PREFIX = ".armvm-build-"

#: Where ordinary users build, because a user namespace's ids cannot enter a private home directory.
SHARED = Path("/var/tmp")  # noqa: S108


def parent_of(output: Path, mode: build.Mode, *, beside: bool) -> Path:
    """Return the directory to build *output* in: its own for root with *beside*, else SHARED."""
    return output.parent if mode is build.Mode.ROOT and beside else SHARED


@contextlib.contextmanager
def workspace(parent: Path, mode: build.Mode, *, needed: int = SPACE) -> Iterator[Path]:
    """Yield a new directory in *parent* with *needed* bytes of free space, and remove it at exit.

    First removes directories that this user's killed builds left behind. Raises StorageError,
    PermissionDenied.
    """
    try:
        for where in {parent, SHARED}:
            sweep(where, mode)
        check_space(parent, needed)
        work, lock = _new(parent)
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot write {error.filename or parent}",
            hint="choose a directory that you can write to",
        ) from error
    with lock:
        try:
            # The namespace's root must be able to enter it. The names inside are not secret.
            work.chmod(0o711 if mode is build.Mode.ROOT else 0o755)
            yield work
        finally:
            _remove(work, mode)


def sweep(parent: Path, mode: build.Mode) -> list[Path]:
    """Remove the directories that this user's killed builds left in *parent*, and return them.

    Skips those of running builds, which hold a lock (flock), and those that it cannot remove.
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
    """Raise StorageError if *directory* has less than *needed* bytes of free space."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StorageError(
            f"the build needs {size_text(needed)} in {directory}, but only {size_text(free)} is "
            "free",
            hint="free some space there, or set XDG_CACHE_HOME to a directory on a larger disk"
            if directory != SHARED
            else "free some space there",
        )


def check_output(output: Path, *, force: bool) -> None:
    """Check that the file *output* can be written, before anything is built.

    Raises Conflict if it exists and *force* is not given, NotFound, PermissionDenied.
    """
    if output.is_dir():
        raise Conflict(f"{output} is a directory", hint="give the path of a file")
    if os.path.lexists(output) and not force:
        raise Conflict(f"{output} already exists", hint="overwrite it with --force")
    if not output.parent.is_dir():
        raise NotFound(f"directory {output.parent} not found", hint="create it first")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise PermissionDenied(
            f"permission denied: cannot write {output.parent}",
            hint="choose a directory that you can write to",
        )


def place(image: Path, output: Path, *, mode: int) -> None:
    """Move the finished *image* to *output* in one step, also from another file system.

    *mode* sets its permissions. Removes what killed moves left beside *output*. Raises
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
            # "x" (O_EXCL) never writes through somebody else's file or link.
            with image.open("rb") as source, partial.open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                os.fsync(target.fileno())
            partial.chmod(mode)
            partial.replace(output)
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot write {output}",
            hint="choose a directory that you can write to",
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot write {output}: {error.strerror or error}", hint="free some space there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def lent(keyring: Path, work: Path) -> Path:
    """Return a copy of a keyring in *work* that the ids of a user namespace can read."""
    data = keyring.read_bytes()
    # apt distinguishes the two formats by the file name.
    copy = work / f"keyring.{'asc' if data.startswith(b'-----BEGIN') else 'gpg'}"
    copy.write_bytes(data)
    copy.chmod(0o644)
    return copy


def umask() -> int:
    """Return the process's umask. Python can read it only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _new(parent: Path) -> tuple[Path, contextlib.ExitStack]:
    """Return a new directory and its lock.

    Until it is locked, another build may take it for one that a killed build left: make another.
    """
    while True:
        work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(_held(work))
                work.stat()
            except (BlockingIOError, FileNotFoundError):
                continue
            return work, lock.pop_all()


@contextlib.contextmanager
def _held(work: Path) -> Iterator[None]:
    """Lock a build's directory. Raises BlockingIOError if another process holds the lock."""
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
    """Return a glob pattern that matches only this name."""
    return re.sub(r"([*?[])", r"[\1]", name)
