"""Build a Debian arm64 cloud image on this host: usermode makes the files, images the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from armvm.errors import BuildFailed, CommandFailed, PermissionDenied, StorageError
from armvm.images import disk
from armvm.progress import Progress, size_text
from armvm.spec.system import CODENAMES, OperatingSystem
from armvm.usermode import binfmt, rootfs

#: Raised when the same recipe must give another image although no text it uses has changed.
FORMAT = 1

GIB = 1 << 30

#: What a build takes beside its output while it runs: files, raw disk, qcow2 [measured: 2.0].
SPACE = 3 * GIB


#: The Debian versions that can be built.
VERSIONS = ("12", "13")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build: a Debian *version*, *packages*, and the disk's *size* in bytes.

    *mirror* is the URL of a Debian archive, or None for mmdebstrap's own choice. The disk grows
    to the machine's size at its first boot.
    """

    version: str = "12"
    packages: tuple[str, ...] = rootfs.PACKAGES
    size: int = 3 * GIB
    mirror: str | None = None

    @property
    def suite(self) -> str:
        """Debian's codename of the version: ``bookworm``."""
        names = {version: name for name, version in CODENAMES["debian"].items()}
        return names[self.version]

    @property
    def reference(self) -> str:
        """What names the image on the command line: ``local:debian-12``."""
        return f"local:debian-{self.version}"

    @property
    def system(self) -> OperatingSystem:
        """The operating system that the image holds."""
        return OperatingSystem(distro="debian", version=self.version)

    @property
    def digest(self) -> str:
        """The sha256 (64 hex digits) of all that decides what is built, except the archive.

        Two builds of one digest differ by what Debian has published in between.
        """
        content = {
            "format": FORMAT,
            "recipe": {**asdict(self), "mirror": None},  # the same packages from elsewhere
            "scripts": rootfs.scripts(),
            "disk": disk.description(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def build_image(
    recipe: Recipe, output: Path, *, progress: Progress, mode: rootfs.Mode | None = None
) -> None:
    """Build *recipe* into the qcow2 file *output*, which is there in full or not at all.

    As an ordinary user the build happens in a user namespace (*mode* says otherwise). Raises
    BuildFailed with the log's end, StorageError when there is no room for it, MissingCapability
    when the host lacks a program or the binfmt handler. Any failure, Ctrl-C too, leaves nothing
    behind.
    """
    mode = mode or rootfs.Mode.here()
    output = output.absolute()
    with contextlib.ExitStack() as stack:
        task = stack.enter_context(progress.task(f"building {recipe.reference}"))
        task.update(text="preparing")
        binfmt.ensure_handler()
        work = stack.enter_context(_directory_beside(output, mode))
        root = work / "root"
        # In a user namespace some files belong to ids that only its own rm can remove.
        stack.callback(rootfs.remove, root, mode=mode)
        rootfs.make(
            root,
            suite=recipe.suite,
            packages=recipe.packages,
            mirror=recipe.mirror,
            mode=mode,
            on_phase=lambda text: task.update(text=text),
        )
        image = work / "disk.qcow2"
        try:
            disk.make(
                root,
                image,
                size=recipe.size,
                inside=mode.inside,
                on_phase=lambda text: task.update(text=text),
            )
        except CommandFailed as error:
            raise BuildFailed(
                f"the disk of {recipe.reference} could not be made: {error.message}",
                detail=error.detail,
                hint="see whether the file system is full, or the recipe's size too small",
            ) from error
        task.update(text="moving into place")
        _move(image, output)
    progress.say(f"built {recipe.reference}: {size_text(output.stat().st_size)} at {output}")


@contextlib.contextmanager
def _directory_beside(output: Path, mode: rootfs.Mode) -> Iterator[Path]:
    """Make the directory to build in, with enough room, and remove it in the end.

    It lies beside *output*, or for a user namespace, whose ids cannot enter a private home
    directory, in the system's place for large temporary files.
    """
    parent = output.parent if mode is rootfs.Mode.ROOT else Path("/var/tmp")  # noqa: S108
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        check_space(parent)
        work = Path(tempfile.mkdtemp(prefix=".armvm-build-", dir=parent))
    except PermissionError as error:
        raise PermissionDenied(
            f"cannot write to {error.filename or parent}",
            hint="choose a directory of your own",
        ) from error
    try:
        # Only passing through, for the namespace's root; names inside are no secret.
        work.chmod(0o711 if mode is rootfs.Mode.ROOT else 0o755)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_space(directory: Path, needed: int = SPACE) -> None:
    """Raise StorageError when *directory* has no room for *needed* bytes."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StorageError(
            f"a build needs {size_text(needed)} in {directory}, which has {size_text(free)} left",
            hint="make room there, or let XDG_CACHE_HOME point to a larger disk",
        )


def _move(image: Path, output: Path) -> None:
    """Put the finished *image* at *output* in one step, from another file system too."""
    image.chmod(0o644)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        shutil.move(image, partial)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
