"""What comes back from a guest as an archive, written into a directory without losing any.

It is a guest's word: nothing of it is written outside the directory, through a symbolic link, or
over a file that was changed here meanwhile.
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
from typing import IO, Any

from armvm.provision.launch.pack import Stamp
from armvm.provision.launch.pack import stamp as stamp_of

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


def write_back(
    directory: Path,
    archive: IO[bytes],
    *,
    asked: Collection[str],
    sent: Mapping[str, Stamp],
    label: str,
) -> WrittenBack:
    """Write what a guest's tar *archive* holds into *directory*, each file at once or not at all.

    Only paths in *asked* are taken; those that do not come are refused. A file that is no longer
    what was *sent* stays, and the guest's is written beside it, as ``NAME.from-LABEL``. Nothing is
    ever removed. Raises OSError when this host cannot write, tarfile.TarError or ValueError for an
    archive that breaks off or makes no sense.
    """
    report = WrittenBack()
    missing = dict.fromkeys(asked)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with tarfile.open(fileobj=archive, mode="r|") as members:
            for member in members:
                path = member.name.removeprefix("./")
                missing.pop(path, None)
                try:
                    if path not in asked:
                        raise _Refused("nobody asked for it")
                    _write(root, path, members, member, sent.get(path), report, label)
                except _Refused as reason:
                    report.refused[path] = str(reason)
    finally:
        os.close(root)
    report.refused.update((path, "the machine could not read it") for path in missing)
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
        if there is not None and stamp_of(there) != stamp:
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
        source: Any = members.extractfile(member)
        if source is not None and member.issparse():
            _write_pieces(file, source.raw, _pieces(member), member.size)
        elif source is not None:
            shutil.copyfileobj(source, file)
        file.flush()
        owner = there or os.fstat(folder)
        with contextlib.suppress(PermissionError):  # not root: it is ours
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fchmod(file.fileno(), member.mode & 0o777)
        with contextlib.suppress(ValueError, OverflowError):  # no moment that there can be
            moment = int(member.mtime * 10**9)
            os.utime(file.fileno(), ns=(moment, moment))


def _pieces(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return offset and length of what is between a file's holes. Raises _Refused for nonsense."""
    told: Any = member.sparse or ()
    pieces: list[tuple[int, int]] = [piece for piece in told if piece[1]]
    end = 0
    for at, length in pieces:
        if at < end or length < 0:
            raise _Refused("its map of holes is invalid")
        end = at + length
    if end > member.size:
        raise _Refused("its map of holes is invalid")
    return pieces


def _write_pieces(file: IO[bytes], source: Any, pieces: list[tuple[int, int]], size: int) -> None:
    """Write a file with holes. *source* is tarfile's raw file, which seeks in any archive."""
    for at, length in pieces:
        source.seek(at)
        file.seek(at)
        while length:
            data = source.read(min(length, 1 << 20))
            file.write(data)
            length -= len(data)
    file.truncate(size)


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
