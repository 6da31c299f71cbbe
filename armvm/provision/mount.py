"""Host directories in a throw-away machine: copied there before its command, and back after it.

No file system is shared. Debian's cloud kernel, for one, has neither 9p nor virtiofs
(``# CONFIG_NET_9P is not set``), and a clone has the devices of its golden. tar and ssh are in
every guest.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from armvm import process
from armvm.errors import CommandFailed, ConfigError, NotFound, StorageError
from armvm.host.instance import Instance
from armvm.progress import Progress
from armvm.provision.carry import Stamp, WrittenBack, pack, write_back
from armvm.provision.ssh import Endpoint, ssh_command
from armvm.spec.files import given_path
from armvm.spec.names import shown

#: A guest's file as `find` tells of it: its type, and all that changes when it does.
Listing = Mapping[str, tuple[str, str]]

#: Lists a directory: type, then time of change, size, inode and path, each entry ended by NUL.
_FIND = r"find . -mindepth 1 -printf '%y %C@:%s:%i %P\0'"
_TAKE = f"""set -e
[ -d "$1" ] || mkdir -p -- "$1" 2>/dev/null || {{
    sudo -n mkdir -p -- "$1"
    sudo -n chown "$(id -u):$(id -g)" -- "$1"
}}
cd -- "$1"
tar -x -p --no-same-owner --warning=no-timestamp -f -
{_FIND}"""
_LIST = f'cd -- "$1" && {_FIND}'
_GIVE = (
    'cd -- "$1" && tar -c --format=posix --no-recursion --hard-dereference '
    "--null --verbatim-files-from -T - -f -"
)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A host directory, and where it lies in the guest: below the user's home, unless it has /."""

    directory: Path
    guest: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A directory that was copied into a guest: how its files looked, here and there."""

    mount: Mount
    here: Mapping[str, Stamp]
    there: Listing


def read_mount(text: str) -> Mount:
    """Read ``DIR[:GUESTDIR][:ro]``. Raises NotFound, ConfigError."""
    words = text.split(":")
    read_only = len(words) > 1 and words[-1] == "ro"
    if read_only:
        words.pop()
    if len(words) > 2 or "\0" in text:
        raise ConfigError(f"{shown(text)} is no mount", hint="write it like src:/srv/src or src:ro")
    directory = given_path(words[0], "directory")
    if not directory.is_dir():
        raise NotFound(f"there is no directory {shown(words[0])}")
    directory = directory.resolve()
    guest = (words[1] if len(words) > 1 else directory.name).removeprefix("~/")
    if not guest:
        raise ConfigError(f"{shown(text)} does not say where it goes", hint="write it like /:host")
    return Mount(
        directory=directory,
        guest=guest if guest.startswith("/") else f"./{guest}",
        read_only=read_only,
    )


def read_mounts(texts: Sequence[str]) -> list[Mount]:
    """Read all of a command line's mounts. Raises ConfigError where two share a place."""
    mounts = [read_mount(text) for text in texts]
    if len({mount.guest for mount in mounts}) < len(mounts):
        raise ConfigError(
            "two mounts have the same place in the guest", hint="name one: --mount DIR:GUESTDIR"
        )
    return mounts


def send(instance: Instance, where: Endpoint, mount: Mount, progress: Progress) -> Carried:
    """Copy a directory into a guest. Raises StorageError, CommandFailed."""
    here: dict[str, Stamp] = {}

    def feed(out: IO[bytes]) -> None:
        here.update(pack(mount.directory, out))

    with progress.task(f"copying {mount.directory} to {instance.name}"):
        try:
            listing = process.stream(_command(instance, where, _TAKE, mount), feed, _all)
        except OSError as error:
            raise StorageError(
                f"{shown(error.filename or str(mount.directory))} cannot be read: {error.strerror}"
            ) from error
    return Carried(mount=mount, here=here, there=read_listing(listing))


def fetch(instance: Instance, where: Endpoint, carried: Carried, progress: Progress) -> None:
    """Write back what the guest has changed in a directory; say what could not be.

    Nothing is removed here: what the guest removed stays. Raises CommandFailed, StorageError.
    """
    mount = carried.mount
    if mount.read_only:
        return
    listing = process.stream(_command(instance, where, _LIST, mount), _nothing, _all)
    now = read_listing(listing)
    asked = changed(carried.there, now)
    if asked:
        report = _fetch_files(instance, where, carried, asked)
        _tell(report, mount, progress)
    gone = sum(path not in now for path in carried.here)
    if gone:
        progress.say(f"{gone} files were removed in the machine; they stay in {mount.directory}")


def _fetch_files(
    instance: Instance, where: Endpoint, carried: Carried, asked: Sequence[str]
) -> WrittenBack:
    directory = carried.mount.directory

    def feed(out: IO[bytes]) -> None:
        out.write(b"".join(b"./" + path.encode(errors="surrogateescape") + b"\0" for path in asked))

    def drain(archive: IO[bytes]) -> WrittenBack:
        return write_back(
            directory, archive, asked=set(asked), sent=carried.here, label=instance.name
        )

    try:
        return process.stream(_command(instance, where, _GIVE, carried.mount), feed, drain)
    except tarfile.TarError as error:
        raise CommandFailed(
            f"what {instance.name} sent back broke off", detail=str(error)
        ) from error
    except OSError as error:
        raise StorageError(f"{directory} cannot be written: {error.strerror}") from error


def _tell(report: WrittenBack, mount: Mount, progress: Progress) -> None:
    if report.written:
        progress.say(f"{len(report.written)} changed files written to {mount.directory}")
    for path, name in report.aside.items():
        progress.warn(f"{shown(path)} was changed here too; the machine's is {shown(name)}")
    for path, reason in report.refused.items():
        progress.warn(f"{shown(path)} was not written: {reason}")


def read_listing(data: bytes) -> Listing:
    """Return what a guest's `find` printed: type and state by path. Raises CommandFailed."""
    listing: dict[str, tuple[str, str]] = {}
    for entry in data.decode(errors="surrogateescape").split("\0")[:-1]:
        kind, _, rest = entry.partition(" ")
        state, _, path = rest.partition(" ")
        if not path:
            raise CommandFailed("the guest's list of files cannot be read", detail=entry[:200])
        listing[path] = (kind, state)
    return listing


def changed(before: Listing, now: Listing) -> list[str]:
    """Return the paths of new and changed files and links, and of new folders.

    The time of change that is compared is the one that programs cannot set (ctime).
    """
    return [
        path
        for path, (kind, state) in now.items()
        if (kind in "fl" and before.get(path) != (kind, state))
        or (kind == "d" and path not in before)
    ]


def _command(instance: Instance, where: Endpoint, script: str, mount: Mount) -> list[str]:
    words = shlex.join(["sh", "-c", script, "sh", mount.guest])
    return ssh_command(instance, where, [words], batch=True)


def _all(stream: IO[bytes]) -> bytes:
    return stream.read()


def _nothing(_stream: IO[bytes]) -> None:
    return
