"""Build a cloud image on this host: usermode makes the files, images the disk."""

from __future__ import annotations

import os
from pathlib import Path

from armvm.base.errors import ArmvmError, BuildFailed, CommandFailed, ConfigError
from armvm.base.progress import Progress, size_text
from armvm.images import disk
from armvm.provision.image import workspace
from armvm.provision.image.recipe import Recipe
from armvm.settings.size import GIB, size_label
from armvm.usermode.rootfs import build, requirements


def build_image(
    recipe: Recipe,
    output: Path,
    *,
    progress: Progress,
    private: bool = False,
    mode: build.Mode | None = None,
    keyring: Path | None = None,
) -> None:
    """Build *recipe* into the qcow2 file *output*, which is there in full or not at all.

    As an ordinary user the build happens in a user namespace (*mode* says otherwise). A *private*
    output is the cache's: root builds beside it. *keyring* must vouch for the package archive,
    the distribution's own by default. Raises MissingCapability when this host cannot build, before
    anything is done; NotFound for a package that there is not; ConfigError when the packages do
    not fit on the disk; BuildFailed with the log's end, StorageError when there is no room for it.
    Any failure, Ctrl-C too, leaves nothing behind; what a kill leaves, the next build removes.
    """
    mode = mode or build.Mode.here()
    output = output.absolute()
    parent = workspace.parent_of(output, mode, beside=private)
    with progress.task(f"building {recipe.title}") as task:
        task.update(text="preparing")
        requirements.check(mode, recipe.making, parent, keyring=keyring)
        with workspace.workspace(parent, mode) as work:
            if keyring is not None:
                keyring = workspace.lent(keyring, work)
            root = work / "root"
            build.make(
                root,
                distro=recipe.making,
                suite=recipe.suite,
                packages=recipe.packages,
                mirror=recipe.mirror,
                keyring=keyring,
                mode=mode,
                on_phase=lambda text: task.update(text=text),
                on_size=lambda size: _check_size(recipe, size, work),
            )
            image = work / "disk.qcow2"
            try:
                disk.make(
                    root,
                    image,
                    size=recipe.size,
                    boot=disk.BOOT_FILES[recipe.distro],
                    inside=mode.inside,
                    on_phase=lambda text: task.update(text=text),
                )
            except CommandFailed as error:
                raise _explained(recipe, error, work) from error
            task.update(text="moving into place")
            permissions = 0o644 if private else 0o666 & ~workspace.umask()
            workspace.place(image, output, mode=permissions)
    where = "" if private else f" at {output}"  # the cache has another name for it
    progress.say(f"built {recipe.title}: {size_text(output.stat().st_size)}{where}")


def _check_size(recipe: Recipe, unpacked: int, work: Path) -> None:
    """Raise ConfigError when *unpacked* bytes of packages do not fit on the recipe's disk."""
    needed = disk.size_for(unpacked)
    if needed > recipe.size:
        raise too_small(recipe, needed)
    # The files, the disk of them, and that as qcow2.
    workspace.check_space(work, max(3 * unpacked, 2 * GIB))


def too_small(recipe: Recipe, needed: int) -> ConfigError:
    """Return the error for a recipe whose packages want a disk of *needed* bytes."""
    return ConfigError(
        f"the packages of {recipe.title} do not fit on {size_label(recipe.size)}",
        hint=f"--size {size_label(needed)} would do",
    )


def _explained(recipe: Recipe, error: CommandFailed, work: Path) -> ArmvmError:
    """Return the error for a disk that could not be made: too small, or something else."""
    full = ("Could not allocate", "No space left", "ENOSPC", "Filesystem too small")
    if any(sign in (error.detail or "") for sign in full) and _has_room(work):
        # apt's own figure was too low: how much more it takes, nobody has said.
        return too_small(recipe, disk.size_for(recipe.size))
    return BuildFailed(
        f"the disk of {recipe.title} could not be made: {error.message}",
        detail=error.detail,
        hint="see whether the file system is full",
    )


def _has_room(directory: Path) -> bool:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize > GIB
