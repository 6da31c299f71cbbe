"""What the kernel's binfmt_misc shows: its handlers, and which of them takes a program.

The files are described in the kernel's Documentation/admin-guide/binfmt-misc.rst. Which handler
wins where several match is not: fs/binfmt_misc.c puts a new one at the head of its list
(``list_add``) and takes the first enabled match, so the latest registered wins.

The order of registration can be read from the directory: binfmt_misc lists its files by the
kernel's common ``dcache_readdir``, the newest first. Seen on 6.18, with handlers registered from
several CPUs in turn. Inode numbers do not tell it (each CPU hands out its own range), times are
too coarse alone (ticks of 1-4 ms, and clocks are set back), but they must not speak against it:
where they do, an answer is marked as uncertain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

#: Where the kernel's file system of handlers is mounted.
ROOT = Path("/proc/sys/fs/binfmt_misc")
#: Its files that are no handlers.
CONTROLS = ("register", "status")


@dataclass(frozen=True, kw_only=True)
class Handler:
    """A registered handler, as its file in binfmt_misc shows it.

    *registered* is when it was registered, in nanoseconds since 1970, where known.
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
        """The mask, which the kernel leaves out where every bit counts."""
        return self.mask or b"\xff" * len(self.magic)

    def takes(self, header: bytes) -> bool:
        """Tell whether a program that begins with *header* is this handler's."""
        part = header[self.offset : self.offset + len(self.magic)]
        if not self.magic or len(part) < len(self.magic):
            return False
        return all(
            (a ^ b) & m == 0 for a, b, m in zip(part, self.magic, self.full_mask, strict=True)
        )

    def bits(self) -> dict[int, tuple[int, int]]:
        """Return the bytes of a file that it looks at: position to (value, mask)."""
        return {
            self.offset + index: (value & mask, mask)
            for index, (value, mask) in enumerate(zip(self.magic, self.full_mask, strict=True))
            if mask
        }


@dataclass(frozen=True, kw_only=True)
class Table:
    """All handlers, the latest registered first.

    *mounted* tells whether binfmt_misc is there at all, *on* whether the kernel uses it (its
    ``status``), *certain* whether times of registration agree with the order.
    """

    mounted: bool
    on: bool
    handlers: tuple[Handler, ...]
    certain: bool = True

    def winner(self, header: bytes) -> Handler | None:
        """Return the handler that the kernel gives a program with this header to; None if none."""
        return next((one for one in self.handlers if one.enabled and one.takes(header)), None)

    def takers(self, header: bytes) -> tuple[Handler, ...]:
        """Return all handlers for a header, enabled or not, the latest first."""
        return tuple(one for one in self.handlers if one.takes(header))

    def named(self, name: str) -> Handler | None:
        """Return the handler of that name."""
        return next((one for one in self.handlers if one.name == name), None)


def parse(name: str, text: str, *, registered: int | None = None) -> Handler:
    """Return the handler that the kernel describes with *text*; what cannot be read is empty."""
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
    """Return what is registered; an empty table where binfmt_misc is not mounted at *root*."""
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
    """Yield what is registered, the latest first; nothing where *root* is no directory."""
    if not root.is_dir():
        return
    for path in root.iterdir():
        if path.name not in CONTROLS:
            text = _text(path)
            if text:  # else it was removed meanwhile
                yield parse(path.name, text, registered=_time(path))


def shadows(handler: Handler, newer: Sequence[Handler]) -> tuple[Handler, bool] | None:
    """Return the first of the *newer* handlers that takes programs of *handler*'s.

    With it, whether it takes them all. None where there is none, or *handler* goes by extension.
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
