"""Builds a cloud image on this host: `armvm.usermode` makes the files, `armvm.images` the disk."""

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
    """Build *recipe* into the qcow2 file *output*.

    An ordinary user builds in a user namespace, unless *mode* is given. A *private* output belongs
    to the cache: root builds beside it. *keyring* has the keys that must sign the package archive,
    by default the distribution's. Raises MissingCapability if this host cannot build, before
    anything is done; NotFound for an unknown package; ConfigError if the packages do not fit on the
    disk; BuildFailed with the end of the log; StorageError if there is not enough space. On
    failure and Ctrl-C nothing is left behind. After a kill, the next build cleans up.
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
    where = "" if private else f" at {output}"  # users name cached images by reference
    progress.say(f"built {recipe.title}: {size_text(output.stat().st_size)}{where}")


def _check_size(recipe: Recipe, unpacked: int, work: Path) -> None:
    """Raise ConfigError when *unpacked* bytes of packages do not fit on the recipe's disk."""
    needed = disk.size_for(unpacked)
    if needed > recipe.size:
        raise too_small(recipe, needed)
    # Space for the files, the raw disk and the qcow2 file.
    workspace.check_space(work, max(3 * unpacked, 2 * GIB))


def too_small(recipe: Recipe, needed: int) -> ConfigError:
    """Return the error for a recipe whose packages need a disk of *needed* bytes."""
    return ConfigError(
        f"the packages of {recipe.title} do not fit on a disk of {size_label(recipe.size)}",
        hint=f"use a larger one: --size {size_label(needed)}",
    )


def _explained(recipe: Recipe, error: CommandFailed, work: Path) -> ArmvmError:
    """Return the error for a failure to make the disk: too small, or another cause."""
    full = ("Could not allocate", "No space left", "ENOSPC", "Filesystem too small")
    if any(sign in (error.detail or "") for sign in full) and _has_room(work):
        # apt's estimate was too low, and nothing reports the real size. So this doubles it.
        return too_small(recipe, disk.size_for(recipe.size))
    return BuildFailed(
        f"cannot create the disk of {recipe.title}: {error.message}",
        detail=error.detail,
        hint="check whether the file system is full",
    )


def _has_room(directory: Path) -> bool:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize > GIB
