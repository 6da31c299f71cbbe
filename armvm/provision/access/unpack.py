"""Unpacks a guest's archive into a host directory without overwriting local changes.

The archive is untrusted: nothing is written outside the directory, through a symbolic link, or over
a file that changed here since it was sent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from armvm.provision.access.pack import Stamp
from armvm.provision.access.pack import stamp as stamp_of

#: Largest size of a file in an archive, in bytes; file systems have lower limits.
_MAX_SIZE = 1 << 62
#: Most bytes of one member's headers. tarfile keeps them in memory, with the maps of sparse files.
_MAX_HEADERS = 4 << 20
#: Errors of this host that are about one file. The others, like a full disk, are about all.
_OF_ONE_FILE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST),
        *(errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.ELOOP, errno.ETXTBSY),
    }
)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, kw_only=True)
class WrittenBack:
    """The results for the returned files, by their paths in the directory.

    ``aside`` maps files that were also changed here to the names of the guest's versions;
    ``refused`` maps files that were not written to the reason.
    """

    written: list[str] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class _Refused(Exception):
    """An archive member that is not written; the text is the reason."""


def write_back(
    directory: Path,
    archive: IO[bytes],
    *,
    asked: Collection[str] | None,
    sent: Mapping[str, Stamp] | None,
    label: str,
) -> WrittenBack:
    """Write the files of a guest's tar *archive* into *directory*, each in one step.

    Writes only paths in *asked*, and reports missing ones as refused; None means all, and keeps
    the modes and times of directories too. Keeps a file that differs from what was *sent*, and
    writes the guest's version beside it as ``NAME.from-LABEL``; None replaces every file. Removes
    nothing. Reports a file that this host cannot write as refused. Raises OSError if it cannot
    write any, tarfile.TarError or ValueError if the archive is incomplete or invalid.
    """
    report = WrittenBack()
    missing = dict.fromkeys(asked or ())
    folders: list[tuple[str, tarfile.TarInfo]] = []
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _opened(archive) as members:
            for member in _members(members):
                path = member.name.removeprefix("./")
                missing.pop(path, None)
                if asked is None and path in ("", "."):
                    continue
                with _refusing(report, path):
                    if asked is not None and path not in asked:
                        raise _Refused("it was not requested")
                    _write(root, path, members, member, sent, report, label)
                    if asked is None and member.isdir():
                        folders.append((path, member))
        for path, member in reversed(folders):  # at the end: one may forbid writing
            with _refusing(report, path), _folder(root, path.split("/")) as folder:
                _stamp(folder, member)
    finally:
        os.close(root)
    report.refused.update((path, "the machine cannot read it") for path in missing)
    return report


class _Stream:
    """A guest's archive. Its end is an error after the first read there, and its headers are short.

    tarfile seeks by reading, and would read at the end as often as a header's size demands.
    """

    def __init__(self, archive: IO[bytes]) -> None:
        self._archive, self._ended = archive, False
        self.allowed: int | None = None

    def read(self, size: int) -> bytes:
        """Return up to *size* bytes. Raises tarfile.ReadError."""
        if self._ended:
            raise tarfile.ReadError("unexpected end of data")
        if self.allowed is not None:
            self.allowed -= size
            if self.allowed < 0:
                raise tarfile.ReadError("its headers are too large")
        data = self._archive.read(size)
        self._ended = not data
        return data


def _opened(archive: IO[bytes]) -> tarfile.TarFile:
    stream = _Stream(archive)

    class Member(tarfile.TarInfo):
        @classmethod
        def fromtarfile(cls, members: tarfile.TarFile) -> Member:
            """Read a member's headers; tarfile calls this again for each further header."""
            if stream.allowed is not None:
                return super().fromtarfile(members)
            stream.allowed = _MAX_HEADERS
            try:
                return super().fromtarfile(members)
            finally:
                stream.allowed = None

        def _proc_member(self, members: tarfile.TarFile) -> tarfile.TarInfo:
            """Read what belongs to a header. Raises tarfile.ReadError for one that no guest needs.

            tarfile calls this for each header, and documents that subclasses may override it.
            """
            if not 0 <= self.size <= _MAX_SIZE or self.type == tarfile.XGLTYPE:
                raise tarfile.ReadError("a header is invalid")
            found: tarfile.TarInfo = super()._proc_member(members)  # type: ignore[misc]
            return found

    opened: tarfile.TarFile
    with _header_errors():  # tarfile reads the first ones
        opened = tarfile.open(  # type: ignore[call-overload]  # noqa: SIM115
            fileobj=stream, mode="r|", tarinfo=Member
        )
    return opened


@contextlib.contextmanager
def _header_errors() -> Iterator[None]:
    """Translate what tarfile raises for invalid headers. Raises tarfile.ReadError."""
    try:
        yield
    except (IndexError, OverflowError, RecursionError) as error:
        raise tarfile.ReadError("its headers are invalid") from error


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield an archive's members. Raises tarfile.TarError, ValueError."""
    while True:
        with _header_errors():
            member = archive.next()
        if member is None:
            return
        archive.members = []  # type: ignore[attr-defined]  # otherwise it keeps all of them
        if not 0 <= member.size <= _MAX_SIZE:
            raise tarfile.ReadError("the size of a file is invalid")
        yield member


@contextlib.contextmanager
def _refusing(report: WrittenBack, path: str) -> Iterator[None]:
    """Report what goes wrong with one file in the block."""
    try:
        yield
    except _Refused as reason:
        report.refused[path] = str(reason)
    except OSError as error:
        if error.errno not in _OF_ONE_FILE:
            raise
        report.refused[path] = os.strerror(error.errno)


def _write(
    root: int,
    path: str,
    members: tarfile.TarFile,
    member: tarfile.TarInfo,
    sent: Mapping[str, Stamp] | None,
    report: WrittenBack,
    label: str,
) -> None:
    *folders, name = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in (*folders, name)):
        raise _Refused("its path is invalid")
    with _folder(root, [*folders, name] if member.isdir() else folders) as folder:
        if member.isdir():
            return
        there = _look(folder, name)
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise _Refused("a directory with that name exists here")
        target = name
        if sent is not None and there is not None and stamp_of(there) != sent.get(path):
            target = report.aside[path] = f"{name}.from-{label}"
        temporary = f".{os.urandom(8).hex()}.armvm-new"
        try:
            if member.isreg():
                _write_file(folder, temporary, members, member, there)
            elif member.issym():
                _check_link(path, member.linkname)
                os.symlink(member.linkname, temporary, dir_fd=folder)
            else:
                raise _Refused("it is neither a file nor a directory")
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
    """Open a directory below *root* without following symbolic links; creates missing ones."""
    at = os.dup(root)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=at)
            try:
                below = os.open(part, _FOLDER, dir_fd=at)
            except OSError as error:
                raise _Refused(f"{part} is not a directory here") from error
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
    """Write a file's bytes. It gets the owner of the file that it replaces, or of its directory."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
        source: Any = members.extractfile(member)
        if source is not None and member.issparse():
            _write_pieces(file, source.raw, _pieces(member), member.size)
        elif source is not None:
            shutil.copyfileobj(source, file)
        file.flush()
        owner = there or os.fstat(folder)
        with contextlib.suppress(PermissionError):  # not root: the file stays ours
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        _stamp(file.fileno(), member)


def _stamp(descriptor: int, member: tarfile.TarInfo) -> None:
    """Give a file or directory its member's mode and time."""
    os.fchmod(descriptor, member.mode & 0o777)
    with contextlib.suppress(ValueError, OverflowError):  # ignore an impossible time
        moment = int(member.mtime * 10**9)
        os.utime(descriptor, ns=(moment, moment))


def _pieces(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return offset and length of a file's data pieces. Raises _Refused for an invalid map."""
    told: Any = member.sparse or ()
    pieces: list[tuple[int, int]] = [piece for piece in told if piece[1]]
    end = 0
    for at, length in pieces:
        if at < end or length < 0:
            raise _Refused("its sparse file map is invalid")
        end = at + length
    if end > member.size:
        raise _Refused("its sparse file map is invalid")
    return pieces


def _write_pieces(file: IO[bytes], source: Any, pieces: list[tuple[int, int]], size: int) -> None:
    """Write a sparse file. *source* is tarfile's raw file, which can seek in any archive."""
    for at, length in pieces:
        source.seek(at)
        file.seek(at)
        while length:
            data = source.read(min(length, 1 << 20))
            file.write(data)
            length -= len(data)
    file.truncate(size)


def _check_link(path: str, target: str) -> None:
    """Refuse a symbolic link with an invalid target or one outside the directory.

    The directories above *path* are no links, but any name in *target* may be one. So ``..`` may
    lead out of the directory after a name.
    """
    if not target or "\0" in target:
        raise _Refused("it is a symbolic link with an invalid target")
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    if target.startswith("/") or up > path.count("/") or ".." in parts[up:]:
        raise _Refused("it is a symbolic link to a path outside the directory")


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
