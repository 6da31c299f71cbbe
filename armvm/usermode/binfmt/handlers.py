"""Read the kernel's binfmt_misc: its handlers, and which of them matches a program.

The files are described in the kernel's Documentation/admin-guide/binfmt-misc.rst. It does not say
which of several matching handlers wins: fs/binfmt_misc.c inserts a new one at the head of its list
(``list_add``) and uses the first enabled match, so the latest registered wins.

The order of the directory is the order of registration: binfmt_misc lists its files with the
kernel's common ``dcache_readdir``, newest first. Verified on 6.18, with handlers registered from
several CPUs in turn. Inode numbers do not show it (each CPU has its own range), and times alone
are too coarse (ticks of 1-4 ms, clocks can be set back). If times contradict the order, an answer
is marked as uncertain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

#: The mount point of binfmt_misc.
ROOT = Path("/proc/sys/fs/binfmt_misc")
#: Its files that are not handlers.
CONTROLS = ("register", "status")


@dataclass(frozen=True, kw_only=True)
class Handler:
    """A registered handler, as shown by its file in binfmt_misc.

    *registered* is the time of registration, in nanoseconds since 1970, if known.
    """

    name: str
    enabled: bool
    interpreter: str
    flags: str
    offset: int = 0
    magic: bytes = b""
    mask: bytes = b""
    extension: str = ""
    registered: int | None = None

    @property
    def fixed(self) -> bool:
        """Whether the interpreter was opened at registration (flag F)."""
        return "F" in self.flags

    @property
    def full_mask(self) -> bytes:
        """The mask; the kernel omits it if every bit counts."""
        return self.mask or b"\xff" * len(self.magic)

    def takes(self, header: bytes) -> bool:
        """Return whether this handler matches a program that starts with *header*."""
        part = header[self.offset : self.offset + len(self.magic)]
        if not self.magic or len(part) < len(self.magic):
            return False
        return all(
            (a ^ b) & m == 0 for a, b, m in zip(part, self.magic, self.full_mask, strict=True)
        )

    def bits(self) -> dict[int, tuple[int, int]]:
        """Return the bytes of a file that it checks: position to (value, mask)."""
        return {
            self.offset + index: (value & mask, mask)
            for index, (value, mask) in enumerate(zip(self.magic, self.full_mask, strict=True))
            if mask
        }


@dataclass(frozen=True, kw_only=True)
class Table:
    """All handlers, latest registered first.

    *mounted* says whether binfmt_misc is mounted, *on* whether the kernel uses it (its
    ``status``), *certain* whether times of registration agree with the order.
    """

    mounted: bool
    on: bool
    handlers: tuple[Handler, ...]
    certain: bool = True

    def winner(self, header: bytes) -> Handler | None:
        """Return the handler that the kernel uses for a program with this header, or None."""
        return next((one for one in self.handlers if one.enabled and one.takes(header)), None)

    def takers(self, header: bytes) -> tuple[Handler, ...]:
        """Return all handlers that match a header, enabled or not, latest first."""
        return tuple(one for one in self.handlers if one.takes(header))

    def named(self, name: str) -> Handler | None:
        """Return the handler with a name, or None."""
        return next((one for one in self.handlers if one.name == name), None)


def parse(name: str, text: str, *, registered: int | None = None) -> Handler:
    """Return the handler that the kernel describes with *text*; unreadable fields are empty."""
    fields: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        key, _, value = line.partition(" ")
        fields.setdefault(key.rstrip(":"), value.strip())
    magic, mask = _bytes(fields.get("magic", "")), _bytes(fields.get("mask", ""))
    offset = fields.get("offset", "0")
    return Handler(
        name=name,
        enabled=text.startswith("enabled"),
        interpreter=fields.get("interpreter", ""),
        flags=fields.get("flags", ""),
        offset=int(offset) if offset.isascii() and offset.isdigit() else 0,
        magic=magic,
        mask=mask if len(mask) == len(magic) else b"",
        extension=fields.get("extension", ""),
        registered=registered,
    )


def read(root: Path = ROOT) -> Table:
    """Return the registered handlers; an empty table if *root* is not binfmt_misc."""
    if not (root / "register").exists():
        return Table(mounted=False, on=False, handlers=())
    found = tuple(handlers(root))
    times = [one.registered or 0 for one in found]
    return Table(
        mounted=True,
        on=not _text(root / "status").startswith("disabled"),
        handlers=found,
        certain=all(newer >= older for newer, older in pairwise(times)),
    )


def handlers(root: Path = ROOT) -> Iterator[Handler]:
    """Yield the registered handlers, latest first; nothing if *root* is not a directory."""
    if not root.is_dir():
        return
    for path in root.iterdir():
        if path.name not in CONTROLS:
            text = _text(path)
            if text:  # else it was just removed
                yield parse(path.name, text, registered=_time(path))


def shadows(handler: Handler, newer: Sequence[Handler]) -> tuple[Handler, bool] | None:
    """Return the first of the *newer* handlers that matches programs of *handler*.

    Also returns whether it matches all of them. None if there is none, or *handler* matches by
    extension.
    """
    for one in newer:
        if one.enabled and one.magic and handler.magic:
            mine, theirs = handler.bits(), one.bits()
            common = mine.keys() & theirs.keys()
            if any((mine[at][0] ^ theirs[at][0]) & mine[at][1] & theirs[at][1] for at in common):
                continue
            whole = all(at in mine and theirs[at][1] & ~mine[at][1] == 0 for at in theirs)
            return one, whole
    return None


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:8192].decode(errors="replace")
    except OSError:
        return ""


def _time(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
