"""The files that a guest has sent, kept for its further compile steps."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from armvm.provision.accelerate.includes import Include, Stat, definitions, scan
from armvm.provision.accelerate.options import Declined

#: Most bytes of all kept files.
LARGEST = 512 << 20
#: Bytes and files that stay free in the file system of the kept files, or a quarter of it.
LEAST_SPACE, LEAST_FILES = 1 << 30, 50_000
#: Most files and paths that are remembered.
MOST_KEPT = 1_000_000


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
            full = self.size + len(content) > LARGEST or len(self.kept) > MOST_KEPT
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
            if len(self.macros) > MOST_KEPT:
                self.macros.clear()
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
