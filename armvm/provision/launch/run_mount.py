"""Copies host directories into a temporary machine before its command, and back after it.

It does not share a file system: Debian's cloud kernel, for one, has no 9p
(``# CONFIG_NET_9P is not set``) and no virtiofs, and a clone has only its golden's devices. tar
exists in every guest.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from armvm.base.errors import CommandFailed, ConfigError, NotFound, StorageError
from armvm.base.progress import Progress
from armvm.provision.access.exclude import GIT, Exclude, ignored_by_git, ignored_of, read_exclude
from armvm.provision.access.pack import SPECIAL, Packed, Stamp, pack
from armvm.provision.access.unpack import WrittenBack, write_back
from armvm.provision.launch.run_commands import Commands
from armvm.settings.names import shown
from armvm.settings.user_path import absolute, given_path

#: A guest's files by path, from `find`: type, and a state that changes whenever the file changes.
Listing = Mapping[str, tuple[str, str]]

#: Longest list of files that a guest may send, in bytes: half a million files or more. Its paths
#: and states take some twelve times as much memory.
LONGEST_LIST = 32 << 20
#: Bytes of a file's headers in an archive, with what fills its last block.
_HEADERS = 4096
#: Longest path in it, in bytes: PATH_MAX.
_LONGEST_PATH = 4096

#: Only root may be able to read what the command created with sudo. So use sudo where it works.
_AS_ROOT = "r=; if sudo -n true 2>/dev/null; then r='sudo -n'; fi"
#: Lists a directory: type, then ctime, size, inode and path, each entry terminated by NUL. The
#: type of an unreadable directory is D.
_FIND = (
    "$r find . -mindepth 1 "
    r"\( -type d \( ! -readable -o ! -executable \) -printf 'D %C@:%s:%i %P\0' -prune \) "
    r"-o -printf '%y %C@:%s:%i %P\0' || [ $? -eq 1 ]"  # 1: a file was removed during the listing
)
_TAKE = f"""set -e
[ -d "$1" ] || mkdir -p -- "$1" 2>/dev/null || {{
    sudo -n mkdir -p -- "$1"
    sudo -n chown "$(id -u):$(id -g)" -- "$1"
}}
cd -- "$1"
tar -x -p -b 512 --no-same-owner --warning=no-timestamp -f -
{_AS_ROOT}
{_FIND}"""
#: Prints nothing for a directory that no longer exists.
_LIST = f"""[ -d "$1" ] || exit 0
{_AS_ROOT}
cd -- "$1" && {_FIND}"""
#: By default tar reads and writes 10 KiB at a time, which is slow under emulation.
#: tar exits with 1 if a process that the command left running changed a file during the read.
_GIVE = f"""{_AS_ROOT}
cd -- "$1" || exit
$r tar -c -b 128 --format=posix --sparse --ignore-failed-read --no-recursion \\
    --hard-dereference --null --verbatim-files-from -T - -f -
code=$?
[ $code -le 1 ] || exit $code"""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A host directory and its path in the guest, relative to the user's home or absolute."""

    directory: Path
    guest: str
    read_only: bool = False
    exclude: Exclude = field(default_factory=Exclude)
    gitignore: bool = False


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A directory that was copied into a guest, with the state of its files on both sides."""

    mount: Mount
    here: Mapping[str, Stamp]
    there: Listing


def read_mount(text: str, exclude: Exclude | None = None) -> Mount:
    """Read ``DIR[:GUESTDIR][:ro]``. Raises NotFound, ConfigError."""
    words = text.split(":")
    read_only = len(words) > 1 and words[-1] == "ro"
    if read_only:
        words.pop()
    if len(words) > 2 or "\0" in text:
        raise ConfigError(f"invalid mount {shown(text)} (examples: src, src:/srv/src, src:ro)")
    directory = given_path(words[0], "directory")
    if not directory.is_dir():
        raise NotFound(f"directory {shown(words[0])} not found")
    directory = absolute(directory).resolve()
    guest = (words[1] if len(words) > 1 else directory.name).removeprefix("~/")
    if not guest:
        raise ConfigError(
            f"invalid mount {shown(text)}: the guest directory is required", hint="example: /:host"
        )
    return Mount(
        directory=directory,
        guest=guest if guest.startswith("/") else f"./{guest}",
        read_only=read_only,
        exclude=exclude or Exclude(),
    )


def read_mounts(
    texts: Sequence[str],
    patterns: Sequence[str] = (),
    *,
    git: bool = False,
    gitignore: bool = False,
) -> list[Mount]:
    """Return all mounts of a command line, which exclude *patterns* and ``.git``.

    With *git*, ``.git`` is copied into the guest too. With *gitignore*, the files that git ignores
    are excluded too. Raises ConfigError if two mounts have the same guest directory, or a
    directory is in no git work tree.
    """
    if (patterns or gitignore) and not texts:
        raise ConfigError("--exclude and --gitignore require --mount")
    exclude = read_exclude([*patterns, *([] if git else [GIT])])
    mounts = [read_mount(text, exclude) for text in texts]
    if gitignore:
        mounts = [
            replace(
                mount,
                exclude=replace(exclude, paths=ignored_by_git(mount.directory)),
                gitignore=True,
            )
            for mount in mounts
        ]
    if len({mount.guest for mount in mounts}) < len(mounts):
        raise ConfigError(
            "two mounts have the same guest directory",
            hint="choose another for one of them: --mount DIR:GUESTDIR",
        )
    return mounts


def send(guest: Commands, mount: Mount, progress: Progress) -> Carried:
    """Copy a directory into a guest; warn of skipped files. Raises StorageError, CommandFailed."""
    done: list[Packed] = []

    def feed(out: IO[bytes]) -> None:
        done.append(pack(mount.directory, out, mount.exclude))

    with progress.task(f"copying {mount.directory} to {guest.name}"):
        try:
            listing = guest.stream(_words(_TAKE, mount), feed, read_list)
        except OSError as error:
            raise StorageError(
                f"cannot read {shown(error.filename or str(mount.directory))}: {error.strerror}",
                hint="to skip it: --exclude PATTERN",
            ) from error
    (packed,) = done
    for path, kind in packed.skipped.items():
        progress.warn(f"{shown(path)} was not copied: it is {kind}")
    if GIT in packed.excluded and GIT in mount.exclude.patterns:
        progress.say(f"{GIT} was not copied (--git copies it)")
    return Carried(mount=mount, here=packed.stamps, there=read_listing(listing))


def fetch(guest: Commands, carried: Carried, progress: Progress) -> None:
    """Write back the files that the guest changed in a directory; warn about those that failed.

    Removes nothing here, even if the guest removed it. Raises CommandFailed, StorageError.
    """
    mount = carried.mount
    if mount.read_only:
        return
    listing = guest.stream(_words(_LIST, mount), _nothing, read_list)
    now = read_listing(listing)
    asked, left = changed(carried.there, now, mount.exclude)
    if mount.gitignore and asked:
        ignored = ignored_of(mount.directory, asked)
        asked = [path for path in asked if path not in ignored]
    report = WrittenBack()
    if asked:
        expected = sum(_size(now[path]) + _HEADERS for path in asked)
        report = _fetch_files(guest, carried, asked, expected)
    report.refused.update(left)
    _tell(report, mount, progress)
    gone = sum(path not in now for path in carried.here)
    if gone:
        progress.say(f"{gone} files were removed in the machine; they stay in {mount.directory}")


def _size(entry: tuple[str, str]) -> int:
    """Return a file's size from a listing, in which the guest may write anything."""
    size = entry[1].split(":")[1:2]
    return int(size[0][:18]) if entry[0] == "f" and size and size[0].isdecimal() else 0


def _fetch_files(
    guest: Commands, carried: Carried, asked: Sequence[str], expected: int
) -> WrittenBack:
    directory = carried.mount.directory

    def feed(out: IO[bytes]) -> None:
        out.write(b"".join(b"./" + path.encode(errors="surrogateescape") + b"\0" for path in asked))

    def drain(archive: IO[bytes]) -> WrittenBack:
        return write_back(directory, archive, asked=set(asked), sent=carried.here, label=guest.name)

    try:
        return guest.stream(_words(_GIVE, carried.mount), feed, drain, expected=expected)
    except tarfile.TarError as error:
        raise CommandFailed(
            f"{guest.name} sent an incomplete archive", detail=str(error)
        ) from error
    except ValueError as error:  # tarfile's, of numbers in a header
        raise CommandFailed(f"{guest.name} sent an invalid archive", detail=str(error)) from error
    except OSError as error:
        raise StorageError(f"cannot write {directory}: {error.strerror}") from error


def _tell(report: WrittenBack, mount: Mount, progress: Progress) -> None:
    if report.written:
        progress.say(f"changed files written to {mount.directory}: {len(report.written)}")
    for path, name in report.aside.items():
        progress.warn(
            f"{shown(path)} was changed here too; the machine's version is in {shown(name)}"
        )
    for path, reason in report.refused.items():
        progress.warn(f"{shown(path)} was not written: {reason}")


def read_listing(data: bytes) -> Listing:
    """Return the types and states by path from a guest's `find`. Raises CommandFailed."""
    listing: dict[str, tuple[str, str]] = {}
    for entry in data.decode(errors="surrogateescape").split("\0")[:-1]:
        kind, _, rest = entry.partition(" ")
        state, _, path = rest.partition(" ")
        if not path or len(os.fsencode(path)) > _LONGEST_PATH:
            raise CommandFailed("the guest sent an invalid list of files", detail=entry[:200])
        listing[path] = (kind, state)
    return listing


def changed(before: Listing, now: Listing, exclude: Exclude) -> tuple[list[str], dict[str, str]]:
    """Return the paths to fetch, and the reason for each other new path that is not fetched.

    It fetches new and changed files and links, and new directories. It compares ctime, which
    programs cannot set. Excluded paths are in neither result, nor is ``.git``, because the user's
    git would run its hooks and settings here.
    """
    asked: list[str] = []
    left: dict[str, str] = {}
    unsafe = Exclude(patterns=(GIT,))
    for path, (kind, state) in now.items():
        folder = kind in "dD"
        if before.get(path) == (kind, state) or (folder and before.get(path, " ")[0] == kind):
            continue
        if exclude.matches(path, directory=folder) or unsafe.matches(path, directory=folder):
            continue
        if kind in "fld":
            asked.append(path)
        else:
            left[path] = "the machine's user cannot read it" if kind == "D" else _not_a_file(kind)
    return asked, left


def _not_a_file(kind: str) -> str:
    return f"it is {SPECIAL.get(kind, 'neither a file nor a directory')}"


def _words(script: str, mount: Mount) -> list[str]:
    return ["sh", "-c", script, "sh", mount.guest]


def read_list(stream: IO[bytes]) -> bytes:
    """Return a guest's list of files. Raises CommandFailed if it is too long."""
    data = stream.read(LONGEST_LIST + 1)
    if len(data) > LONGEST_LIST:
        raise CommandFailed(
            f"the guest's list of files is longer than {LONGEST_LIST >> 20} MiB",
            hint="mount a directory with fewer files",
        )
    return data


def _nothing(_stream: IO[bytes]) -> None:
    return
