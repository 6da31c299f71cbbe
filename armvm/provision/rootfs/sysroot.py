"""Libraries for `armvm emulate --image`: a distribution's packages, unpacked once and cached.

The packages are not configured. So no foreign program runs, and neither root nor binfmt handlers
are needed. The files belong to the user, who can remove the directory like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from pathlib import Path

from armvm.base import process
from armvm.base.errors import ConfigError
from armvm.base.paths import cache_dir, locked, private_dir
from armvm.base.progress import Progress
from armvm.images.cache.files import storage_errors
from armvm.provision.image import local, recipe, workspace
from armvm.provision.image.recipe import Recipe
from armvm.usermode.programs.emulate import DEBIAN
from armvm.usermode.rootfs import build_log, requirements
from armvm.usermode.rootfs.build import Mode
from armvm.usermode.rootfs.distros import archives

#: Its packages: Debian's essential ones, and the libraries that most programs are linked with.
#: (The pattern needs an option of its own: mmdebstrap does not split one that begins with it.)
PATTERN = "?essential"
PACKAGES = ("libstdc++6", "libgcc-s1", "libgomp1", "libatomic1", "zlib1g")

#: Free space in bytes that making it requires, for the archive and its files.
SPACE = 1 << 30


def obtain(image: str, architecture: str, progress: Progress) -> Path:
    """Return the directory with the libraries of *image* for a QEMU *architecture*.

    Makes it if it is not cached. *image* is debian:12, local:debian-12+libcurl4, …. Raises
    ConfigError for an unsupported architecture, NotFound for an image without a recipe,
    MissingCapability, BuildFailed, StorageError.
    """
    arch = DEBIAN.get(architecture)
    if arch is None:
        raise ConfigError(
            f"unsupported architecture {architecture} for --image; known: arm64, armhf",
            hint="use your own libraries: --sysroot DIR",
        )
    wanted = local.with_archive(recipe.made(image))
    content = json.dumps(
        [1, wanted.distro, wanted.version, arch, PATTERN, *PACKAGES, *wanted.extra]
    )
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    home = cache_dir() / "sysroots"
    target = home / f"{wanted.plain}-{arch}-{digest}"
    with storage_errors(home):
        private_dir(home)
        with locked(home / f".{target.name}.lock"):
            if not target.is_dir():
                _make(wanted, arch, target, progress)
    return target


def command(wanted: Recipe, arch: str, archive: Path, mode: Mode) -> list[str | Path]:
    """Return the command line that writes the packages of a sysroot into a tar *archive*."""
    making = wanted.making
    return [
        *(("unshare", "--mount", "--propagation", "private") if mode is Mode.ROOT else ()),
        *("mmdebstrap", f"--mode={mode.value}", "--variant=extract", f"--arch={arch}"),
        # skip=check/qemu: the unpacked programs do not run.
        *("--format=tar", "--skip=check/qemu"),
        *(f"--include={PATTERN}", f"--include={','.join((*PACKAGES, *wanted.extra))}"),
        *((f"--keyring={making.keyring}",) if making.own_keyring else ()),
        *(wanted.suite, archive),
        *archives(making, wanted.suite, wanted.mirror),
    ]


def _make(wanted: Recipe, arch: str, target: Path, progress: Progress) -> None:
    """Make the directory *target*; on failure nothing is left behind."""
    mode = Mode.here()
    title = f"{wanted.making.title} {wanted.version} for {arch}"
    partial = target.with_name(f".{target.name}.partial")
    with progress.task(f"downloading the libraries of {title}") as task:
        requirements.check_tools(("mmdebstrap", "apt-get", "dpkg", "gpgv", "tar"), mode)
        requirements.check_keyring(wanted.making, None)
        requirements.check_place(mode, workspace.SHARED)
        with workspace.workspace(workspace.SHARED, mode, needed=SPACE) as work:
            task.update(text="downloading packages")
            archive = work / "root.tar"
            log: deque[str] = deque(maxlen=build_log.MOST_LINES)
            done = process.run(
                command(wanted, arch, archive, mode),
                env={"TMPDIR": str(work)},
                check=False,
                on_line=log.append,
            )
            if done.returncode != 0:
                raise build_log.failure(list(log), wanted.making, wanted.suite, arch)
            task.update(text="unpacking packages")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                partial.mkdir(mode=0o700)
                process.run(
                    [
                        *("tar", "--extract", f"--file={archive}", f"--directory={partial}"),
                        *("--no-same-owner", "--no-same-permissions", "--exclude=./dev/*"),
                    ]
                )
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    progress.say(f"cached the libraries of {title} in {os.fspath(target)}")
