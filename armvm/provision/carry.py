"""A directory as an archive: packed for a guest, and what comes back written without losing any.

What comes back is a guest's word: nothing of it is written outside the directory, through a
symbolic link, or over a file that was changed here meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import shutil
import stat
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

#: A file as it was seen: inode, size in bytes, time of change of its contents in nanoseconds.
Stamp = tuple[int, int, int]
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, kw_only=True)
class WrittenBack:
    """What became of the files that came back, by their paths in the directory.

    ``aside`` maps those that were changed here meanwhile to the names they were written under;
    ``refused`` maps what was not written to the reason.
    """

    written: list[str] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class _Refused(Exception):
    """Something that a guest sent and that is not written; its text says why."""


def pack(directory: Path, out: IO[bytes]) -> dict[str, Stamp]:
    """Write *directory*'s files, folders and symbolic links to *out* as a tar archive.

    Returns the files' and links' stamps by their paths. Sockets, pipes and devices are left
    out; so is who owns what. Raises OSError for what cannot be read.
    """
    stamps: dict[str, Stamp] = {}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path, found in _walk(directory, ""):
            info = archive.gettarinfo(directory / path, f"./{path}")
            if info is None:
                continue
            if info.islnk():  # a second name of a file: a file of its own there
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", found.st_size
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode &= 0o777
            if info.isreg():
                with (directory / path).open("rb") as file:
                    archive.addfile(info, file)
            elif info.isdir() or info.issym():
                archive.addfile(info)
            if not info.isdir():
                stamps[path] = _stamp(found)
    return stamps


def _walk(directory: Path, below: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(directory / below) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = posixpath.join(below, entry.name)
        status = entry.stat(follow_symlinks=False)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(directory, path)


def write_back(
    directory: Path,
    archive: IO[bytes],
    *,
    asked: Collection[str],
    sent: Mapping[str, Stamp],
    label: str,
) -> WrittenBack:
    """Write what a guest's tar *archive* holds into *directory*, each file at once or not at all.

    Only paths in *asked* are taken. A file that is no longer what was *sent* stays, and the
    guest's is written beside it, as ``NAME.from-LABEL``. Nothing is ever removed. Raises
    OSError when this host cannot write, tarfile.TarError for an archive that breaks off.
    """
    report = WrittenBack()
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with tarfile.open(fileobj=archive, mode="r|") as members:
            for member in members:
                path = member.name.removeprefix("./")
                try:
                    if path not in asked:
                        raise _Refused("nobody asked for it")
                    _write(root, path, members, member, sent.get(path), report, label)
                except _Refused as reason:
                    report.refused[path] = str(reason)
    finally:
        os.close(root)
    return report


def _write(
    root: int,
    path: str,
    members: tarfile.TarFile,
    member: tarfile.TarInfo,
    stamp: Stamp | None,
    report: WrittenBack,
    label: str,
) -> None:
    *folders, name = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in (*folders, name)):
        raise _Refused("its name leads elsewhere")
    with _folder(root, [*folders, name] if member.isdir() else folders) as folder:
        if member.isdir():
            return
        there = _look(folder, name)
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise _Refused("a folder of that name is here")
        target = name
        if there is not None and _stamp(there) != stamp:
            target = report.aside[path] = f"{name}.from-{label}"
        temporary = f".{secrets.token_hex(8)}.armvm-new"
        try:
            if member.isreg():
                _write_file(folder, temporary, members, member, there)
            elif member.issym():
                _check_link(path, member.linkname)
                os.symlink(member.linkname, temporary, dir_fd=folder)
            else:
                raise _Refused("it is neither a file nor a folder")
            os.replace(temporary, target, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            report.aside.pop(path, None)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    if path not in report.aside:
        report.written.append(path)


@contextlib.contextmanager
def _folder(root: int, parts: list[str]) -> Iterator[int]:
    """Open a folder below *root*, made where it is missing, through no symbolic link."""
    at = os.dup(root)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=at)
            try:
                below = os.open(part, _FOLDER, dir_fd=at)
            except OSError as error:
                raise _Refused(f"{part} is no folder here") from error
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _write_file(
    folder: int,
    name: str,
    members: tarfile.TarFile,
    member: tarfile.TarInfo,
    there: os.stat_result | None,
) -> None:
    """Write a file's bytes, owned as the one it replaces, or as its folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
        source = members.extractfile(member)
        if source is not None:
            shutil.copyfileobj(source, file)
        file.flush()
        owner = there or os.fstat(folder)
        with contextlib.suppress(PermissionError):  # not root: it is ours
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fchmod(file.fileno(), member.mode & 0o777)
        with contextlib.suppress(ValueError, OverflowError):  # no moment that there can be
            moment = int(member.mtime * 10**9)
            os.utime(file.fileno(), ns=(moment, moment))


def _check_link(path: str, target: str) -> None:
    """Refuse a symbolic link that leads nowhere, or out of the directory."""
    if not target or "\0" in target:
        raise _Refused("it is a symbolic link to nothing")
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if target.startswith("/") or end == ".." or end.startswith("../"):
        raise _Refused("it is a symbolic link that leads out of the directory")


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns
