"""One compile step of a guest: the conversation with its program, `templates/accelerate.c`.

The guest may send anything. Whatever is odd ends the conversation, and the guest compiles by
itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from armvm.base.errors import ArmvmError
from armvm.provision.accelerate import sandbox
from armvm.provision.accelerate.includes import (
    Closure,
    Include,
    Stat,
    definitions,
    plain,
    scan,
)
from armvm.provision.accelerate.options import Declined, Step, read

#: What a conversation begins with.
HELLO = b"ARMVMCC1"
#: Limits of what a guest sends: words of a command, bytes of all, a file and all kept files.
MOST_WORDS, LONGEST_COMMAND, LARGEST_FILE, LARGEST_STORE = 10_000, 2 << 20, 32 << 20, 512 << 20
#: Bytes and files that stay free in the file system of the kept files, or a quarter of it.
LEAST_SPACE, LEAST_FILES = 1 << 30, 50_000
#: Most files and paths that are remembered.
MOST_KEPT = 1_000_000
#: Seconds that the guest may take for an answer.
PATIENCE = 300.0
_STAT = struct.Struct(">7Q")
_UNREADABLE = 2**64 - 1
_MISSING = Stat(kind=0)


@dataclass(frozen=True, kw_only=True)
class Compilers:
    """The compilers of a guest and of this host, by language (``c``, ``c++``).

    ``names`` are the names that the guest's programs have, ``standard`` their include directories;
    ``host`` are the paths of this host's programs, ``hidden`` all their include directories.
    """

    names: Mapping[str, str]
    host: Mapping[str, str]
    standard: Mapping[str, Sequence[str]]
    hidden: Sequence[str]


def has_room(found: os.statvfs_result) -> bool:
    """Return whether a guest's files may fill a file system further. It may be in memory."""
    return found.f_bavail * found.f_frsize >= min(
        found.f_blocks * found.f_frsize // 4, LEAST_SPACE
    ) and found.f_favail >= min(found.f_files // 4, LEAST_FILES)


@dataclass(kw_only=True)
class Store:
    """The files of a guest that were sent, by path and `Stat`, in a directory of this host.

    ``last`` is what the guest said last of each path.
    """

    directory: Path
    kept: dict[tuple[str, Stat], tuple[Path, tuple[Include, ...] | Declined]] = field(
        default_factory=dict
    )
    macros: dict[tuple[Path, str], tuple[Include, ...]] = field(default_factory=dict)
    last: dict[str, Stat] = field(default_factory=dict)
    size: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, path: str, stat: Stat, content: bytes) -> None:
        """Keep a file's content, with the guest's time of change. Raises Declined without space."""
        try:
            names: tuple[Include, ...] | Declined = scan(content)
        except Declined as error:
            names = error
        # Two files may be told apart by their times: #pragma once does that.
        told = f"{stat.modified}\0".encode() + content
        place = self.directory / hashlib.sha256(told).hexdigest()
        with self._lock:
            full = self.size + len(content) > LARGEST_STORE or len(self.kept) > MOST_KEPT
            if full or not has_room(os.statvfs(self.directory)):
                self._clear()
                if not has_room(os.statvfs(self.directory)):
                    raise Declined(f"no space is left in {self.directory}")
            if not place.exists():
                self.size += len(content)
                partial = place.with_suffix(".partial")
                partial.write_bytes(content)
                partial.chmod(0o644)
                seconds, rest = stat.modified
                os.utime(partial, ns=(seconds * 10**9 + rest,) * 2)
                partial.replace(place)
            self.kept[path, stat] = (place, names)

    def place(self, file: tuple[str, Stat]) -> Path:
        """Return where a file is kept. Raises Declined if another step's files replaced it."""
        found = self.kept.get(file)
        if found is None:
            raise Declined("more files than are kept")
        return found[0]

    def names(self, file: tuple[str, Stat]) -> tuple[Include, ...] | Declined:
        """Return the names that a file includes, or why that is not certain; none if not kept."""
        found = self.kept.get(file)
        return () if found is None else found[1]

    def definitions(self, file: tuple[str, Stat], macro: str) -> tuple[Include, ...]:
        """Return the names that a kept file defines a macro as. Raises Declined."""
        place = self.place(file)
        found = self.macros.get((place, macro))
        if found is None:
            found = self.macros[place, macro] = definitions(place.read_bytes(), macro)
        return found

    def remember(self, known: Mapping[str, Stat]) -> None:
        """Keep what the guest said of paths."""
        if len(self.last) > MOST_KEPT:
            self.last.clear()
        self.last.update(known)

    def _clear(self) -> None:
        """Begin anew. Files that a running step uses have further links."""
        for known in (self.kept, self.macros, self.last):
            known.clear()
        for one in self.directory.iterdir():
            one.unlink()
        self.size = 0


class Guest:
    """The guest's end of a conversation. All methods raise OSError and Declined."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(PATIENCE)

    def command(self) -> list[str]:
        """Return the working directory, ``tty`` or empty, SOURCE_DATE_EPOCH, and the words."""
        if self._read(len(HELLO)) != HELLO:
            raise Declined("not the program of this armvm")
        count = self._number()
        if not 4 <= count <= MOST_WORDS:
            raise Declined(f"{count} words")
        found = []
        left = LONGEST_COMMAND
        for _ in range(count):
            length = self._number()
            left -= length
            if left < 0:
                raise Declined("a long command")
            found.append(os.fsdecode(self._read(length)))
        return found

    def stat(self, paths: Sequence[str]) -> list[Stat]:
        """Ask about paths."""
        self._send(b"S", _joined(paths))
        return self._stats(len(paths))

    def _stats(self, count: int) -> list[Stat]:
        answer = self._read(_STAT.size * count)
        return [
            Stat(kind=kind, size=size, modified=(s, ns), changed=(cs, cns), inode=inode)
            for kind, size, s, ns, cs, cns, inode in _STAT.iter_unpack(answer)
        ]

    def contents(self, wanted: Sequence[tuple[str, Stat]]) -> Iterator[bytes]:
        """Ask for files, which have to be as long as they were; yield one after the other."""
        self._send(b"G", _joined([path for path, _ in wanted]))
        return self._contents(wanted)

    def file(self, path: str) -> tuple[Stat, bytes]:
        """Ask for a file."""
        self._send(b"F", _joined([path]))
        [stat] = self._stats(1)
        if stat.size > LARGEST_FILE:
            raise Declined(f"{path} is too large")
        [content] = self._contents([(path, stat)])
        return stat, content

    def _contents(self, wanted: Sequence[tuple[str, Stat]]) -> Iterator[bytes]:
        for path, stat in wanted:
            (length,) = struct.unpack(">Q", self._read(8))
            if length == _UNREADABLE or length != stat.size:
                raise Declined(f"{path} cannot be read, or changes")
            yield self._read(length)

    def write(self, path: str, content: bytes) -> None:
        """Write a file in the guest."""
        self._send(b"W", os.fsencode(path) + b"\0" + content)

    def end(self, messages: bytes) -> None:
        """The step is done."""
        if messages:
            self._send(b"E", messages)
        self._send(b"X", b"0")

    def decline(self, reason: str) -> None:
        """Let the guest compile."""
        self._send(b"L", reason.encode(errors="replace")[:500])

    def _send(self, kind: bytes, data: bytes) -> None:
        self._connection.sendall(kind + struct.pack(">I", len(data)) + data)

    def _number(self) -> int:
        (found,) = struct.unpack(">I", self._read(4))
        return int(found)

    def _read(self, count: int) -> bytes:
        parts = []
        while count > 0:
            part = self._connection.recv(min(count, 1 << 20))
            if not part:
                raise ConnectionResetError("the guest has gone")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def _joined(paths: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(one) + b"\0" for one in paths)


def serve(
    connection: socket.socket,
    compilers: Compilers,
    store: Store,
    slots: threading.Semaphore,
    said: Callable[[str], None],
) -> None:
    """Compile one step for a guest, or decline it. Never raises: *said* gets a line about it."""
    guest = Guest(connection)
    with contextlib.suppress(OSError), connection:
        try:
            directory, terminal, epoch, name, *words = guest.command()
            begun = time.monotonic()
            shown = " ".join(words)[-200:]
            if name not in compilers.names:
                raise Declined(f"not one of its compilers: {name[:60]!r}")
            if not posixpath.isabs(directory) or posixpath.normpath(directory) != directory:
                raise Declined("an odd working directory")
            step = read(compilers.names[name], words)
            if step.language not in compilers.host:
                raise Declined(f"no compiler for {step.language}")
            compiler, standard = compilers.host[step.language], compilers.standard[step.language]
            with tempfile.TemporaryDirectory(dir=store.directory.parent, prefix="job-") as place:
                sandbox.may_use(Path(place))
                tree = Path(place) / "tree"
                _gather(guest, step, directory, standard, store, tree)
                gathered = time.monotonic()
                with slots:
                    result = sandbox.compile_in(
                        tree,
                        step,
                        compiler=compiler,
                        hidden=compilers.hidden,
                        standard=standard,
                        directory=directory,
                        epoch=epoch,
                        terminal=terminal == "tty",
                    )
            if result.code != 0 or result.output is None:
                raise Declined(f"exit code {result.code}")
            if (result.depends is None) != (step.depends is None):
                raise Declined("no dependency file")
            if result.depends is not None and step.depends is not None:
                guest.write(step.depends, result.depends)
            guest.write(step.output, result.output)
            guest.end(result.messages)
            now = time.monotonic()
            took = f"{now - begun:.2f} s, of which {gathered - begun:.2f} s to find its files"
            said(f"compiled in {took}: {shown}")
        except (Declined, ArmvmError, OSError, ValueError, OverflowError, MemoryError) as error:
            said(f"declined: {error or 'no memory is left'}")
            with contextlib.suppress(OSError):
                guest.decline(str(error))


def _gather(
    guest: Guest, step: Step, directory: str, standard: Sequence[str], store: Store, tree: Path
) -> None:
    """Create a directory tree with the step's files at the paths that they have in the guest."""

    def included(wanted: Sequence[tuple[str, Stat]]) -> list[tuple[Include, ...]]:
        new = [one for one in wanted if one not in store.kept]
        if sum(stat.size for _, stat in new) > LARGEST_STORE or any(
            stat.size > LARGEST_FILE for _, stat in new
        ):
            raise Declined("files that are too large")
        if new:
            for (path, stat), content in zip(new, guest.contents(new), strict=True):
                store.add(path, stat, content)
        found = []
        for one in wanted:
            store.place(one)
            names = store.names(one)
            if isinstance(names, Declined):
                raise Declined(f"{one[0]}: {names}")
            found.append(names)
        return found

    closure = Closure(
        step=step,
        directory=directory,
        standard=standard,
        stat=guest.stat,
        included=included,
        defined=store.definitions,
    )
    source = posixpath.join(directory, step.source)
    if source not in store.last:
        stat, content = guest.file(source)
        store.add(source, stat, content)
        closure.known[source] = stat
    # Each answer of an emulated guest takes long: ask at once for all that was asked before.
    guess = replace(
        closure,
        stat=lambda paths: [
            closure.known.get(one) or store.last.get(one, _MISSING) for one in paths
        ],
        included=lambda wanted: [_known(store.names(one)) for one in wanted],
        known={},
        files={},
    )
    with contextlib.suppress(Declined):
        guess.find()
    closure.ask((*guess.known, *guess.crossings(), *map(plain, guess.files)))
    there = [(one, closure.known[one]) for one in guess.files]
    included([one for one in there if one[1].is_file])
    files = closure.find()
    closure.ask((*closure.crossings(), *map(plain, files)))
    closure.check_links()
    store.remember(closure.known)
    tree.mkdir()
    places: dict[str, Path] = {}
    for path, stat in files.items():
        target = plain(path)
        if target.startswith(sandbox.TAKEN):
            raise Declined(f"a file at {target}")
        place = store.place((path, stat))
        # The compiler reads a/../b by way of a, which may be a link in the guest.
        same = replace(closure.known[target], kind=stat.kind) == stat
        if places.setdefault(target, place) != place or not same:
            raise Declined(f"{path} leads through a link")
    made = {tree}

    def make(folder: str) -> None:
        at = tree / folder.lstrip("/")
        if at not in made:
            at.mkdir(parents=True, exist_ok=True)
            made.add(at)

    if f"{directory}/".startswith(sandbox.TAKEN):
        raise Declined(f"the working directory {directory}")
    make(directory)
    for folder in map(plain, closure.directories()):  # gcc may warn of those that are missing
        if not f"{folder}/".startswith(sandbox.TAKEN):
            make(folder)
    for path in files:
        parts = posixpath.dirname(path).split("/")
        if ".." in parts:  # also the directories that it leaves again
            for end in range(1, len(parts)):
                make(plain("/".join(parts[: end + 1])))
    for target, place in places.items():
        make(posixpath.dirname(target))
        os.link(place, tree / target.lstrip("/"))
    sandbox.prepare(tree)


def _known(names: tuple[Include, ...] | Declined) -> tuple[Include, ...]:
    return () if isinstance(names, Declined) else names


def remove(directory: Path) -> None:
    """Remove a service's directory with all that it keeps."""
    shutil.rmtree(directory, ignore_errors=True)
