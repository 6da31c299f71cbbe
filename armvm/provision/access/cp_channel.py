"""Copy files to and from a clone through its channel or a disk: a tar archive, without ssh.

It keeps what `cp` promises: modes and times, symbolic links followed, literal names. A guest's
archive is untrusted; see `unpack`.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import stat
import tarfile
from pathlib import Path
from typing import IO

from armvm.base.errors import CommandFailed, NotFound, PermissionDenied, StorageError, UsageError
from armvm.base.progress import Progress
from armvm.guest.ssh.scp import needs_recursive
from armvm.host.domain.handle import Handle
from armvm.provision.access.channel_command import Command
from armvm.provision.access.channel_stream import stream
from armvm.provision.access.pack import pack
from armvm.provision.access.unpack import write_back
from armvm.settings.names import shown
from armvm.settings.user_path import absolute

#: Sets $1 to the target of a source called $2: with $3, $1 must be a directory.
_TARGET = """
if [ -d "$1" ]; then set -- "${1%/}/$2" "$2" "$3" "$4" "$5" "$6"
elif [ -n "$3" ]; then printf '%s: not a directory\\n' "$1" >&2; exit 1
fi
"""
#: Write the first $6 bytes of the input to the target, with the mode $4 and the time $5. If that is
#: 0, write all of it: the files in /proc have a size of 0. From a disk, whole blocks go past the
#: page cache, which takes half the time; not every file system can write so.
_TAKE_FILE = (
    _TARGET
    + """if [ "$6" = 0 ]; then cat >"$1" || exit
elif [ -b /dev/stdin ]; then
    past=
    dd if=/dev/null of="$1" oflag=direct status=none 2>/dev/null && past=oflag=direct
    dd bs=1M count="$((($6 + 1048575) / 1048576))" iflag=direct $past status=none >"$1" || exit
    truncate -s "$6" "$1" || exit
else dd bs=1M iflag=fullblock,count_bytes count="$6" status=none >"$1" || exit
fi
chmod "$4" "$1" && touch -m -d "@$5" "$1"
"""
)
_TAKE_FOLDER = (
    _TARGET
    + """[ -d "$1" ] || mkdir "$1" || exit
tar -x -p -b 512 --no-same-owner --overwrite --warning=no-timestamp -C "$1" -f - || exit
chmod "$4" "$1" && touch -m -d "@$5" "$1"
"""
)
#: Writes a line about the file or directory $1 and its contents. The line has the size of a page:
#: on a disk, what follows is written in whole pages.
_GIVE = """
tell() { about=$(stat -L -c "$1 %a %Y %s" -- "$2") && printf '%-4095s\\n' "$about"; }
if [ -d "$1" ]; then
    tell d "$1" || exit
    exec tar -c -h -b 128 --hard-dereference --format=posix --sparse --ignore-failed-read \\
        -C "$1" -f - .
fi
[ -f "$1" ] || { printf '%s: no such file or directory\\n' "$1" >&2; exit 1; }
tell f "$1" && exec cat "$1"
"""
_COPY = "the copy"
_HEAD = re.compile(rb"([df]) ([0-7]{1,4}) (-?[0-9]{1,12}) ([0-9]{1,19}) *\n")


def upload(
    machine: Handle, sources: tuple[str, ...], target: str, *, recursive: bool, progress: Progress
) -> None:
    """Copy files to a guest. A target that is a directory gets them under their names.

    Raises NotFound, UsageError, StorageError for a file that cannot be read, CommandFailed.
    """
    for source in sources:
        path = Path(source)
        name = _name_of(str(absolute(path)))
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise NotFound(f"{shown(source)} not found") from error
        except OSError as error:
            raise _unreadable(error, source) from error
        folder = stat.S_ISDIR(status.st_mode)
        if folder and not recursive:
            raise needs_recursive(source)
        if not folder and not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{shown(source)} is neither a file nor a directory")
        words = [
            *("sh", "-c", _TAKE_FOLDER if folder else _TAKE_FILE, "sh"),
            *(_in_guest(target), name, "several" if len(sources) > 1 else ""),
            *(f"{stat.S_IMODE(status.st_mode):o}", f"{status.st_mtime:.9f}", str(status.st_size)),
        ]

        def feed(
            out: IO[bytes], path: Path = path, folder: bool = folder, size: int = status.st_size
        ) -> None:
            if folder:
                found = pack(path, out, follow=True)
                for skipped, kind in found.skipped.items():
                    progress.warn(f"{shown(skipped)} was not copied: it is {kind}")
            else:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, out, 1 << 18)
                    if file.tell() < size:
                        raise StorageError(f"{shown(str(path))} became shorter during the copy")

        with progress.task(f"copying {shown(source)} to {machine.name}"):
            try:
                stream(machine, _command(machine, words), feed, _ignore, progress, what=_COPY)
            except OSError as error:
                raise _unreadable(error, source) from error


def download(
    machine: Handle, sources: tuple[str, ...], target: str, *, recursive: bool, progress: Progress
) -> None:
    """Copy files from a guest. A target that is a directory gets them under their names.

    Follows a symbolic link at the target, as scp does; `unpack` creates none that leads out of its
    directory. Raises UsageError, StorageError for a file that cannot be written, CommandFailed.
    """
    into = Path(target)
    if len(sources) > 1 and not into.is_dir():
        raise UsageError(f"{shown(target)} is not a directory")
    for source in sources:
        name = _name_of(source.rstrip("/"))
        place = into / name if into.is_dir() else into

        def drain(data: IO[bytes], source: str = source, place: Path = place) -> bool:
            head = _HEAD.fullmatch(data.readline(4096))
            if head is None:
                return False  # usually the command failed, and says why
            mode, moment = int(head[2], 8) & 0o7777, int(head[3])
            if head[1] == b"f":
                _write_file(place, data)
            elif recursive:
                _write_folder(place, data, machine.name, progress)
            else:
                raise needs_recursive(source)
            place.chmod(mode & 0o777)
            os.utime(place, (moment, moment))
            return True

        words = ["sh", "-c", _GIVE, "sh", _in_guest(source)]
        with progress.task(f"copying {shown(source)} from {machine.name}"):
            try:
                done = stream(
                    *(machine, _command(machine, words), _nothing, drain, progress),
                    what=_COPY,
                    only_reads=True,
                    expected=_size,
                )
            except OSError as error:
                text = f"cannot write {shown(str(error.filename or place))}: {error.strerror}"
                raise StorageError(text) from error
        if not done:
            raise CommandFailed(f"{machine.name} sent an invalid answer")


def _ignore(output: IO[bytes]) -> None:
    while output.read(1 << 16):
        pass


def _nothing(_out: IO[bytes]) -> None:
    return


def _size(output: bytes) -> int:
    """Return the size of the file that the guest sends; 0 for a directory's, which is unknown."""
    head = _HEAD.match(output)
    return int(head[4]) if head is not None and head[1] == b"f" else 0


def _write_file(place: Path, data: IO[bytes]) -> None:
    with place.open("wb") as file:
        shutil.copyfileobj(data, file, 1 << 18)


def _write_folder(place: Path, data: IO[bytes], label: str, progress: Progress) -> None:
    place.mkdir(exist_ok=True)
    try:
        report = write_back(place, data, asked=None, sent=None, label=label)
    except (tarfile.TarError, ValueError) as error:
        raise CommandFailed(f"{label} sent an invalid archive", detail=str(error)) from error
    for path, reason in report.refused.items():
        progress.warn(f"{shown(path)} was not written: {reason}")
    if report.refused:
        raise CommandFailed(f"{len(report.refused)} files were not copied")


def _command(machine: Handle, words: list[str]) -> Command:
    return Command(words=words, user=machine.record.user)


def _in_guest(path: str) -> str:
    """Return a guest path that no program takes for an option; it is relative to the home."""
    relative = path.removeprefix("~/") if path != "~" else ""
    return relative if relative.startswith("/") else f"./{relative}"


def _name_of(path: str) -> str:
    name = posixpath.basename(posixpath.normpath(path)) if path else "."
    if name in ("", ".", "..", "/"):
        raise UsageError(
            f"the copy of {shown(path)} needs a name",
            hint="name the directory itself, for example its absolute path",
        )
    return name


def _unreadable(error: OSError, source: str) -> StorageError | PermissionDenied:
    text = f"cannot read {shown(str(error.filename or source))}: {error.strerror}"
    return PermissionDenied(text) if isinstance(error, PermissionError) else StorageError(text)
