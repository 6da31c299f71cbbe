"""Packages added to an image before it boots, by user-mode emulation on this host.

What is slow under emulation is done by the host's own programs: reading package lists, checking
signatures, and decompressing (armvm.usermode.rootfs.apt and deb). Only dpkg and the packages'
scripts run emulated, in a user namespace. The new image is the old one with other files on its root
partition. It is kept in the cache; its key is the digest of the original image and of the packages.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from armvm.base import process
from armvm.base.errors import (
    BuildFailed,
    CommandFailed,
    ConfigError,
    HostileImage,
    ImageError,
    MissingCapability,
)
from armvm.base.progress import Progress
from armvm.images import rewrite
from armvm.images.board import BoardRoot, find_root, unreadable
from armvm.images.cache.store import Cache
from armvm.images.check.formats import read_head, recognise
from armvm.images.check.guest_disk import GuestDisk, Unreadable, opened
from armvm.images.check.qcow2 import inspect
from armvm.images.model import Image
from armvm.images.obtain import LOCAL
from armvm.provision.image import workspace
from armvm.provision.rootfs import bootable, enter
from armvm.provision.rootfs.unpack import unpack
from armvm.settings.names import derived_name
from armvm.settings.size import GIB
from armvm.usermode.rootfs import apt, build_log, deb, requirements, tree
from armvm.usermode.rootfs import enter as entering
from armvm.usermode.rootfs.build import Mode

#: Increased when the same packages must give a different image although the script is unchanged.
FORMAT = 1

#: The host's programs that installing needs.
PROGRAMS = ("apt-get", "gpgv", "tar", "cp", "mke2fs", "sfdisk", "qemu-img")

#: Directory of the packages in the root file system, while they are installed.
_DEBS = ".armvm-packages"

#: Runs in the root file system. Arguments: its directory with packages, how many of the names that
#: follow were not requested, and names. If it fails, the root file system is discarded.
#: Without package lists, apt knows only what is installed and these packages, so it starts quickly.
#: The image's hooks for apt do not run: they ask questions, or look for running services.
#: mandb reads all manual pages at every installation, which takes minutes under emulation; man-db's
#: timer does it in the guest.
_SCRIPT = """\
set -eu
debs=$1 others=$2
shift 2
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
export APT_CONFIG=/run/armvm-apt.conf
mkdir -p /run/armvm-lists/partial /run/armvm-none.d
cat > "$APT_CONFIG" <<'END'
Dir::Etc::main "/run/armvm-none";
Dir::Etc::parts "/run/armvm-none.d";
Dir::State::lists "/run/armvm-lists";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "root";
Dpkg::Use-Pty "0";
Dpkg::Options { "--force-confold"; "--force-unsafe-io"; };
END
instead() { printf '#!/bin/sh\\nexit %s\\n' "$2" > "$1"; chmod 755 "$1"; }
policy=/usr/sbin/policy-rc.d
[ ! -e $policy ] || mv $policy $policy.armvm
instead $policy 101
divert() { dpkg-divert --quiet --local --rename --divert /usr/bin/mandb.armvm "$1" /usr/bin/mandb; }
divert --add
instead /usr/bin/mandb 0
[ -z "$(ls "$debs")" ] || apt-get -q -y --no-install-recommends install "$debs"/*.deb
rm /usr/bin/mandb $policy
divert --remove
[ ! -e $policy.armvm ] || mv $policy.armvm $policy
rm -r "$debs"
if [ "$others" -gt 0 ]; then apt-mark -q auto "$@" > /dev/null; fi
"""


class Refused(ImageError):
    """Packages cannot be installed in an image on this host. Its guest may still install them."""


def installed(image: Image, packages: tuple[str, ...], progress: Progress) -> Image:
    """Return *image* with *packages* added, from the cache or by installing them.

    Raises NotFound for an unknown package, BuildFailed if packages cannot be downloaded, Refused,
    StorageError. On failure nothing is left behind.
    """
    name = derived_name("with", packages, image.source.reference)
    wait = f"waiting for another armvm process that is creating {LOCAL}{name}"
    entry = Cache.default().derived(
        image.source,
        name=name,
        recipe=recipe_digest(image, packages),
        make=lambda target: _make(image, packages, target, progress),
        on_wait=lambda: progress.say(wait),
    )
    size = inspect(entry.path).virtual_size
    return Image(
        source=replace(
            image.source, digest=entry.digest, packages=packages, size=None, virtual_size=size
        ),
        path=entry.path,
        digest=entry.digest,
        size=entry.size,
        virtual_size=size,
    )


def recipe_digest(image: Image, packages: tuple[str, ...]) -> str:
    """Return the sha256 (64 hex digits) of everything that determines an image with packages."""
    content = [FORMAT, image.digest, packages, _SCRIPT]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _make(image: Image, packages: tuple[str, ...], target: Path, progress: Progress) -> None:
    """Write *image* with *packages* to the qcow2 file *target*."""
    told, mode = image.source.reference, Mode.here()
    _check_host(mode)
    with (
        workspace.workspace(workspace.SHARED, mode, needed=GIB) as work,
        opened(image.path) as stream,
    ):
        disk = GuestDisk(stream, recognise(read_head(image.path), told), budget=1 << 60)
        found = _checked(disk, told)
        root = work / "root"
        try:
            unpack(found, root, told, progress)
        except MissingCapability as error:
            raise Refused(error.message, detail=error.detail, hint=error.hint) from error
        with progress.task(f"installing {', '.join(packages)} in {told}") as task:

            def phase(text: str) -> None:
                task.update(text=text)

            _install(root, packages, work, told, phase)
            new = work / "disk.qcow2"
            _write(disk, found, root, new, told, phase)
            phase("moving into place")
            workspace.place(new, target, mode=0o644)


def _write(
    disk: GuestDisk,
    found: BoardRoot,
    root: Path,
    target: Path,
    told: str,
    phase: Callable[[str], None],
) -> None:
    """Write *disk* with the files of *root* to *target*, in the workspace."""
    phase("measuring")
    inside = entering.as_owner(root)
    try:
        used = int(process.run([*inside, "du", "-sx", "--block-size=1", root]).text.split()[0])
        workspace.check_space(target.parent, 2 * used + GIB)
        rewrite.rewrite(disk, found, root, target, used=used, inside=inside, on_phase=phase)
    except CommandFailed as error:
        raise BuildFailed(
            f"cannot write the disk of {told}: {error.message}",
            detail=error.detail,
            hint="check whether the host's file system is full",
        ) from error
    except ConfigError as error:
        raise Refused(error.message) from error
    except Unreadable as error:
        raise unreadable(told, found.partition, error) from error


def _check_host(mode: Mode) -> None:
    """Raise Refused, with the fix as hint, unless this host can install packages in an image."""
    more = () if mode is Mode.ROOT else ("newuidmap", "newgidmap", "mmdebstrap")
    try:
        requirements.check_programs([*PROGRAMS, *more])
        requirements.check_place(mode, workspace.SHARED)
        entering.ensure_runs("aarch64")
    except MissingCapability as error:
        raise Refused(error.message, detail=error.detail, hint=error.hint) from error


def _checked(disk: GuestDisk, told: str) -> BoardRoot:
    """Return the root file system of a disk. Raises Refused if no packages can be added to it."""
    try:
        found = find_root(disk, told)
        apt_get = found.system.find("usr/bin/apt-get")
    except HostileImage:
        raise
    except ImageError as error:
        detail = f"; it has {error.detail}".replace("\n", "; ") if error.detail else ""
        raise Refused(f"{error.message}{detail}") from error
    except Unreadable as error:
        raise Refused(str(error)) from error
    if bootable.distro_in(tree.release_fields(found.os_release)) is None or apt_get is None:
        raise Refused(f"{told} is not Debian, Ubuntu or a system derived from them")
    return found


def _install(
    root: Path, packages: tuple[str, ...], work: Path, told: str, phase: Callable[[str], None]
) -> None:
    """Install *packages* in *root*, which belongs to a user namespace."""
    debs = apt.download(
        root,
        packages,
        work / "apt",
        title=told,
        on_phase=phase,
        on_size=lambda size: workspace.check_space(work, 4 * size + GIB),
    )
    names = {deb.name_of(one) for one in debs}
    if kernels := sorted(name for name in names if name.startswith("linux-image-")):
        raise Refused(f"a kernel can be installed only in a running guest: {kernels[0]}")
    phase("decompressing packages")
    plain = work / "debs"
    plain.mkdir(mode=0o755)
    deb.unpacked(debs, plain)
    before = bootable.installed(root)
    # A requested name that is no package's is a virtual one: then all stay marked as requested.
    known = names | before
    others = sorted(names - before - set(packages)) if known.issuperset(packages) else []
    inside = entering.as_owner(root)
    place = root / _DEBS
    process.run([*inside, "mkdir", place])
    process.run([*inside, "cp", "--no-target-directory", "--recursive", plain, place])
    log: deque[str] = deque(maxlen=build_log.MOST_LINES)

    def on_line(line: str) -> None:
        log.append(line)
        for sign, text in bootable.STEPS.items():
            if line.startswith(sign):
                phase(text)

    words = ["sh", "-c", _SCRIPT, "armvm", f"/{_DEBS}", str(len(others)), *others]
    phase("unpacking packages")
    if enter.run(root, words, on_line=on_line, network=False).returncode != 0:
        raise Refused(
            "a package cannot be installed outside of a running guest",
            detail="\n".join(build_log.extract(list(log))),
        )
