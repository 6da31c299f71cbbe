"""``rootfs to-image``: create an image for machines from a root file system."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base import process
from armvm.base.errors import BuildFailed, CommandFailed, ConfigError, UsageError
from armvm.base.progress import Progress, size_text
from armvm.base.result import Doc, Seconds
from armvm.images import disk
from armvm.images.cache.named import keep_only, reserved
from armvm.images.cache.store import Cache
from armvm.images.digest import hash_file
from armvm.images.model import Verified
from armvm.provision.image import local, workspace
from armvm.provision.image.recipe_input import USUAL_SIZE, parse_image_size
from armvm.provision.rootfs import bootable
from armvm.settings.size import GIB, MIB, size_label
from armvm.settings.system import OperatingSystem
from armvm.settings.user_path import absolute
from armvm.usermode.rootfs import enter
from armvm.usermode.rootfs.build import Mode


@dataclass(frozen=True, kw_only=True)
class Imaged:
    """The image that was created from a root file system."""

    reference: Annotated[
        str | None,
        Doc(
            "The reference to give to --image, such as local:mine; null: --output wrote it to a "
            "file.",
            pattern="^local:[a-z0-9][a-z0-9.+-]{0,62}$",
        ),
    ]
    path: Annotated[Path, Doc("Absolute path of the qcow2 file.", pattern="^/")]
    digest: Annotated[str, Doc("The file's sha256.", pattern="^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Doc("Size of the image's disk in bytes.", minimum=GIB)]
    seconds: Annotated[Seconds, Doc("How long it took.")]


def to_image(
    root: Path,
    *,
    as_name: str | None = None,
    output: Path | None = None,
    size: str | None = None,
    install_missing: bool = False,
    force: bool = False,
    progress: Progress,
    cache: Cache | None = None,
) -> Imaged:
    """Create a bootable image of *root*, in the cache as *as_name* or in the file *output*.

    *root* is only changed with *install_missing*, which installs missing packages. Raises
    UsageError unless exactly one of both is given, ConfigError for a root file system that cannot
    boot (the message says why) or does not fit on *size*, Conflict if the name or the file
    already exists and *force* is false, BuildFailed, StorageError, PermissionDenied. On failure
    no image is left behind.
    """
    start = time.monotonic()
    if (as_name is None) == (output is None):
        raise UsageError(
            "either --as or --output is required",
            hint="--as NAME stores it as local:NAME, --output FILE writes a file",
        )
    wanted = None if size is None else parse_image_size(size)
    real = enter.check_root(root)
    refuse_other_processors(real)
    if output is not None:
        output = absolute(output)
        workspace.check_output(output, force=force)
        bootable.make_ready(real, install=install_missing, progress=progress)
        digest, disk_size = _write(real, output, wanted, progress, private=False)
        seconds = time.monotonic() - start
        return Imaged(path=output, reference=None, digest=digest, size=disk_size, seconds=seconds)
    name = local.own_name(str(as_name))
    cache = cache or Cache.default()
    with reserved(cache, name, replace=force, progress=progress) as reference:
        system = bootable.make_ready(real, install=install_missing, progress=progress)
        made = store(real, name, reference, system, size=wanted, progress=progress, cache=cache)
    return replace(made, seconds=time.monotonic() - start)


def store(
    root: Path,
    name: str,
    reference: str,
    system: OperatingSystem,
    *,
    size: int | None,
    progress: Progress,
    cache: Cache,
    title: str | None = None,
) -> Imaged:
    """Store an image of the bootable *root* as *reference*, whose name the caller has reserved.

    *size* is the disk's in bytes, by default the usual one or more if the files need it. *title*
    names a temporary root in messages. Raises ConfigError, BuildFailed, StorageError.
    """
    start = time.monotonic()
    with cache.partial(reference) as partial:
        digest, disk_size = _write(root, partial, size, progress, private=True, title=title)
        entry = cache.store_local(
            partial,
            name=name,
            recipe=digest.removeprefix("sha256:"),
            system=system,
            verified=Verified.NOTHING,
            digest=digest,
            content=digest,
        )
    keep_only(cache, entry)
    seconds = time.monotonic() - start
    return Imaged(
        path=entry.path, reference=reference, digest=digest, size=disk_size, seconds=seconds
    )


def refuse_other_processors(root: Path) -> None:
    """Raise ConfigError for a root file system that armvm's machines cannot boot."""
    name = enter.architecture(root)
    if name != "aarch64":
        raise ConfigError(
            f"unsupported architecture {name} of {root}: armvm's machines only boot arm64",
            hint="run its programs with: armvm rootfs enter; or in a container in a machine",
        )


def _write(
    root: Path,
    output: Path,
    wanted: int | None,
    progress: Progress,
    *,
    private: bool,
    title: str | None = None,
) -> tuple[str, int]:
    """Write the image file *output*; return its digest and the disk's size in bytes."""
    mode = Mode.here()
    distro = bootable.distro_of(root).name
    inside = enter.as_owner(root)
    # In a user namespace, mke2fs cannot enter a private cache.
    parent = workspace.parent_of(output, mode, beside=private and not inside)
    told = title or str(root)
    with progress.task(f"creating an image of {told}") as task:
        task.update(text="measuring")
        used = int(process.run([*inside, "du", "-sx", "--block-size=1", root]).text.split()[0])
        needed = disk.size_for(used)
        size = wanted or max(USUAL_SIZE, needed)
        if needed > size:
            raise ConfigError(
                f"the files of {told} do not fit on a disk of {size_label(size)}",
                hint=f"use --size {-(-needed // MIB)}M or more",
            )
        with workspace.workspace(parent, mode, needed=2 * used + GIB) as work:
            image = work / "disk.qcow2"
            try:
                disk.make(
                    root,
                    image,
                    size=size,
                    boot=disk.BOOT_FILES[distro],
                    inside=inside,
                    on_phase=lambda text: task.update(text=text),
                )
            except CommandFailed as error:
                raise BuildFailed(
                    f"cannot create the disk of {told}: {error.message}",
                    detail=error.detail,
                    hint="check whether the host's file system is full, or try a larger --size",
                ) from error
            task.update(text="hashing")
            digest = hash_file(image)
            permissions = 0o644 if private else 0o666 & ~workspace.umask()
            workspace.place(image, output, mode=permissions)
    progress.say(f"the image takes {size_text(output.stat().st_size)}")
    return digest, size
