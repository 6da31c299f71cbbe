"""Read the files of an ext2, ext3 or ext4 file system inside a disk, without mounting it.

The file system is untrusted: the kernel never sees it, and all that is read is checked. A name
contains no slash, a directory has one parent and no name twice, and no more data is read than
the superblock counts as used. So the result is a tree. Anything else raises Unreadable.
Source: the kernel's documentation, filesystems/ext4 ("Data Structures and Algorithms").
"""

from __future__ import annotations

import stat
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from armvm.images.check.guest_disk import GuestDisk, Unreadable

#: Features that this reader knows, or that do not change what it reads: filetype, extents, 64bit,
#: multiple mount protection, flex_bg, ea_inode (such attributes are skipped), checksum seed,
#: large directories.
_KNOWN = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000
_NAMED = {
    0x1: "compression",
    0x4: "a journal to replay (it was not unmounted)",
    0x8: "an external journal",
    0x10: "meta_bg",
    0x8000: "inline_data",
    0x10000: "encryption",
    0x20000: "case-insensitive names",
}
_FEATURE_64BIT = 0x80

_INODE_EXTENTS = 0x80000
_INODE_INLINE = 0x10000000
_XATTR_MAGIC = 0xEA020000
#: Prefixes of extended attributes' names by index. ACLs (2, 3) have another form on the disk.
_XATTR_PREFIXES = {1: "user.", 6: "security."}

#: Limits on hostile input. Linux allows 40 links and names of 4,096 bytes in one path.
MAX_LINKS = 40
MAX_PATH = 4096
_MAX_DEPTH = 5
#: Pieces of one file, and blocks of one file's extent tree or tables.
MAX_RUNS = 1 << 18
_MAX_INDEX_BLOCKS = 1 << 16
_MAX_DIRECTORY = 64 << 20
_ROOT = 2


@dataclass(frozen=True, kw_only=True)
class Inode:
    """A file: ``size`` in bytes, ``mtime`` in seconds since 1970."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    flags: int
    block: bytes
    xattrs: Mapping[str, bytes]

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


#: Consecutive blocks of a file, in bytes: the offset in the file, the place in the file system
#: (None: a hole), and the length.
_Piece = tuple[int, int | None, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Consecutive bytes of a file: at *offset* in the file, at *place* in the file system."""

    offset: int
    place: int
    length: int


def is_ext(disk: GuestDisk, start: int, size: int) -> bool:
    """Return whether an ext2, ext3 or ext4 file system starts at byte *start* of a disk."""
    return size >= 4096 and disk.read(start + 1080, 2) == b"\x53\xef"


class Ext4:
    """A file system of at most *size* bytes at byte *start* of a disk."""

    def __init__(self, disk: GuestDisk, start: int, size: int) -> None:
        """Read the superblock. Raises Unreadable for an unsupported or corrupt one; OSError."""
        self._disk, self._start = disk, start
        raw = disk.read(start + 1024, 1024)
        (magic,) = struct.unpack_from("<H", raw, 56)
        if magic != 0xEF53:
            raise Unreadable("not an ext4 file system")
        self.inodes, blocks = struct.unpack_from("<II", raw, 0)
        (first_data, log) = struct.unpack_from("<II", raw, 20)
        self._per_group_blocks, _, self._per_group = struct.unpack_from("<III", raw, 32)
        (revision,) = struct.unpack_from("<I", raw, 76)
        self._inode_size = struct.unpack_from("<H", raw, 88)[0] if revision else 128
        (features,) = struct.unpack_from("<I", raw, 96)
        if revision and (unknown := features & ~_KNOWN):
            names = [name for bit, name in _NAMED.items() if unknown & bit]
            raise Unreadable(f"its file system has {', '.join(names) or hex(unknown)}")
        wide = bool(revision and features & _FEATURE_64BIT)
        self._descriptor = struct.unpack_from("<H", raw, 254)[0] if wide else 32
        blocks |= struct.unpack_from("<I", raw, 336)[0] << 32 if wide else 0
        if log > 6 or not self._per_group or not self._per_group_blocks:
            raise Unreadable("its superblock is corrupt")
        self.block_size = 1024 << log
        if not 128 <= self._inode_size <= self.block_size or not 32 <= self._descriptor <= 1024:
            raise Unreadable("its superblock is corrupt")
        self.blocks = blocks
        (free,) = struct.unpack_from("<I", raw, 12)
        free |= struct.unpack_from("<I", raw, 344)[0] << 32 if wide else 0
        #: What its files and tables take, in bytes.
        self.used = max(blocks - free, 0) * self.block_size
        if blocks * self.block_size > size:
            raise Unreadable("its file system ends beyond the partition")
        self.uuid = uuid.UUID(bytes=raw[104:120])
        self.label = raw[120:136].split(b"\0")[0]
        self._groups = -(-(blocks - first_data) // self._per_group_blocks)
        self._table = (first_data + 1) * self.block_size
        #: What is left to read of files. Each block belongs to one file; directories are read
        #: more than once.
        self._left = self.used + (64 << 20)

    @property
    def root(self) -> Inode:
        """The top directory."""
        inode = self.inode(_ROOT)
        if not inode.is_directory:
            raise Unreadable("its top directory is corrupt")
        return inode

    def inode(self, number: int) -> Inode:
        """Return an inode by number. Raises Unreadable."""
        group, index = divmod(number - 1, self._per_group)
        if not 0 < number <= self.inodes or group >= self._groups:
            raise Unreadable(f"it has no inode {number}")
        entry = self._read(self._table + group * self._descriptor, self._descriptor)
        (table,) = struct.unpack_from("<I", entry, 8)
        if self._descriptor >= 64:
            table |= struct.unpack_from("<I", entry, 40)[0] << 32
        raw = self._read(table * self.block_size + index * self._inode_size, self._inode_size)
        mode, uid, low, _, _, mtime, _, gid, links = struct.unpack_from("<HHIIIIIHH", raw, 0)
        (flags,) = struct.unpack_from("<I", raw, 32)
        acl_low, high = struct.unpack_from("<II", raw, 104)
        acl_high, uid_high, gid_high = struct.unpack_from("<HHH", raw, 118)
        if not links or not mode:
            raise Unreadable(f"its inode {number} is not in use, but has a name")
        if flags & _INODE_INLINE:
            raise Unreadable("its file system has inline_data")
        return Inode(
            number=number,
            mode=mode,
            uid=uid | uid_high << 16,
            gid=gid | gid_high << 16,
            size=low | (0 if stat.S_ISLNK(mode) else high << 32),
            mtime=mtime,
            flags=flags,
            block=raw[40:100],
            xattrs=self._xattrs(raw, acl_low | acl_high << 32),
        )

    def entries(self, directory: Inode) -> Iterator[tuple[bytes, int]]:
        """Yield a directory's names, without ``.`` and ``..``, with inode numbers.

        Raises Unreadable also for a name that occurs twice or contains a slash.
        """
        if directory.size > _MAX_DIRECTORY:
            raise Unreadable("a directory is too large")
        seen: set[bytes] = set()
        if sum(run.length for run in self.runs(directory)) < directory.size:
            raise Unreadable("a directory has holes")
        data = self.read(directory, directory.size)
        for start in range(0, len(data), self.block_size):
            at, end = start, min(start + self.block_size, len(data))
            while at + 8 <= end:
                number, length, name_length = struct.unpack_from("<IHB", data, at)
                # A block of 64 KiB has one entry of 65,536 bytes, written as 65,535 or 0.
                length = self.block_size if length in (0, 65535) else length
                if length < 8 + name_length or length % 4 or at + length > end:
                    raise Unreadable("a directory is corrupt")
                name = data[at + 8 : at + 8 + name_length]
                at += length
                if not number or name in (b".", b".."):
                    continue
                if not name or b"/" in name or b"\0" in name or name in seen:
                    raise Unreadable("a directory has an invalid name")
                seen.add(name)
                yield name, number

    def read(self, inode: Inode, limit: int) -> bytes:
        """Return the first *limit* bytes of a file."""
        wanted = min(inode.size, limit)
        data = bytearray(wanted)
        for run in self.runs(inode):
            if run.offset < wanted:
                length = min(run.length, wanted - run.offset)
                data[run.offset : run.offset + length] = self.data(run.place, length)
        return bytes(data)

    def link_target(self, link: Inode) -> bytes:
        """Return the target of a symbolic link."""
        if not 0 < link.size < MAX_PATH:
            raise Unreadable("a link is corrupt")
        target = link.block[: link.size] if link.size < 60 else self.read(link, link.size)
        if b"\0" in target:
            raise Unreadable("a link is corrupt")
        return target

    def find(self, path: str) -> Inode | None:
        """Return the file at *path*, following links inside the file system; None if none."""
        todo = [part for part in reversed(path.encode().split(b"/")) if part]
        parents: list[Inode] = []
        here, links = self.root, 0
        while todo:
            part = todo.pop()
            if part == b".":
                continue
            if part == b"..":
                here = parents.pop() if parents else here
                continue
            number = dict(self.entries(here)).get(part) if here.is_directory else None
            if number is None:
                return None
            found = self.inode(number)
            if found.is_link:
                links += 1
                target = self.link_target(found)
                if links > MAX_LINKS or len(todo) > MAX_PATH:
                    return None
                if target.startswith(b"/"):
                    here, parents = self.root, []
                todo += [one for one in reversed(target.split(b"/")) if one]
            else:
                parents.append(here)
                here = found
        return here

    def runs(self, inode: Inode) -> list[Run]:
        """Return where the data of a file is, in order; what is missing is a hole."""
        if inode.size > 1 << 48:
            raise Unreadable("a file is too large")
        index = iter(range(_MAX_INDEX_BLOCKS))
        if inode.flags & _INODE_EXTENTS:
            found = self._extents(inode.block, _MAX_DEPTH, index)
        else:
            found = self._mapped(inode, index)
        end = 0
        runs: list[Run] = []
        for offset, place, whole in found:
            if offset < end or not whole:
                raise Unreadable("a file's blocks are out of order")
            end = offset + whole
            length = min(end, inode.size) - offset
            if place is None or length <= 0:
                continue
            last = runs[-1] if runs else None
            if last and (last.offset + last.length, last.place + last.length) == (offset, place):
                runs[-1] = Run(offset=last.offset, place=last.place, length=last.length + length)
            elif len(runs) < MAX_RUNS:
                runs.append(Run(offset=offset, place=place, length=length))
            else:
                raise Unreadable("a file has too many pieces")
        return runs

    def data(self, place: int, length: int) -> bytes:
        """Return bytes of a file; all files together have at most what the superblock counts."""
        self._count(length)
        return self._read(place, length)

    def _count(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise Unreadable("its files take more space than its superblock counts as used")

    def _index_block(self, place: int, index: Iterator[int]) -> bytes:
        """Return a block of a file's extent tree or tables; *index* counts them."""
        if next(index, None) is None:
            raise Unreadable("a file has too many index blocks")
        return self.data(place, self.block_size)

    def _extents(self, node: bytes, depth: int, index: Iterator[int]) -> Iterator[_Piece]:
        magic, count, _, level = struct.unpack_from("<HHHH", node, 0)
        if magic != 0xF30A or level > depth or 12 + count * 12 > len(node):
            raise Unreadable("a file's extents are corrupt")
        for at in range(12, 12 + count * 12, 12):
            if level:
                _, low, high = struct.unpack_from("<IIH", node, at)
                below = self._index_block((low | high << 32) * self.block_size, index)
                yield from self._extents(below, level - 1, index)
                continue
            first, length, high, low = struct.unpack_from("<IHHI", node, at)
            place = (low | high << 32) * self.block_size
            if length > 32768:  # allocated, but not written: a hole
                yield first * self.block_size, None, (length - 32768) * self.block_size
            else:
                yield first * self.block_size, place, length * self.block_size

    def _mapped(self, inode: Inode, index: Iterator[int]) -> Iterator[_Piece]:
        """Yield the pieces of an ext2 or ext3 file: 12 blocks, then three levels of tables."""
        number, count = 0, -(-inode.size // self.block_size)
        pointers = struct.unpack("<15I", inode.block)
        for level, start in enumerate((0, 12, 13, 14)):
            for pointer in pointers[start : 12 if not level else start + 1]:
                if number >= count:
                    return
                if pointer:
                    yield from self._blocks(pointer, level, number, count, index)
                number += (self.block_size // 4) ** level

    def _blocks(
        self, pointer: int, level: int, number: int, count: int, index: Iterator[int]
    ) -> Iterator[_Piece]:
        size = self.block_size
        if not level:
            yield number * size, pointer * size, size
            return
        step = (size // 4) ** (level - 1)
        table = struct.unpack(f"<{size // 4}I", self._index_block(pointer * size, index))
        for below in table:
            if number >= count:
                return
            if below:
                yield from self._blocks(below, level - 1, number, count, index)
            number += step

    def _xattrs(self, raw: bytes, block: int) -> dict[str, bytes]:
        """Return an inode's attributes: capabilities, and the users' own."""
        found: dict[str, bytes] = {}
        if len(raw) > 132:
            start = 128 + int(struct.unpack_from("<H", raw, 128)[0])
            if start + 4 <= len(raw) and raw[start : start + 4] == _MAGIC:
                self._collect(raw[start + 4 :], 0, found)
        if block:
            data = self._read(block * self.block_size, self.block_size)
            if data[:4] != _MAGIC:
                raise Unreadable("extended attributes are corrupt")
            self._collect(data, 32, found)
            self._count(sum(map(len, found.values())))  # many files can share the block
        return found

    def _collect(self, data: bytes, at: int, found: dict[str, bytes]) -> None:
        while at + 16 <= len(data) and any(data[at : at + 4]):
            length, index, offset, inode, size = struct.unpack_from("<BBHII", data, at)
            name = data[at + 16 : at + 16 + length]
            at += -(-(16 + length) // 4) * 4
            prefix = _XATTR_PREFIXES.get(index)
            if prefix is None or inode:
                continue
            if offset + size > len(data) or not name.isascii() or b"\0" in name or b"=" in name:
                raise Unreadable("extended attributes are corrupt")
            found[prefix + name.decode()] = data[offset : offset + size]

    def _read(self, place: int, length: int) -> bytes:
        if place < 0 or place + length > self.blocks * self.block_size:
            raise Unreadable("it refers to blocks beyond its end")
        return self._disk.read(self._start + place, length)


_MAGIC = struct.pack("<I", _XATTR_MAGIC)
