"""Reading a board's image: partition tables, ext4, and the root file system, also hostile ones."""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from armvm.base.errors import HostileImage, ImageError
from armvm.images import ext4_tar
from armvm.images.board import find_root
from armvm.images.check.formats import DiskFormat
from armvm.images.check.guest_disk import GuestDisk, Unreadable, opened
from armvm.images.check.partitions import Partition, partitions
from armvm.images.ext4 import Ext4
from tests import board_tools
from tests.board_tools import MIB, mbr

pytestmark = pytest.mark.skipif(
    shutil.which("mke2fs", path=f"{os.environ['PATH']}:/sbin") is None, reason="needs mke2fs"
)


def table_of(path: Path, sectors: dict[int, bytes], size: int = 8 * MIB) -> list[Partition]:
    """Return the partitions of a disk of *size* bytes with these sectors."""
    with path.open("wb") as file:
        file.truncate(size)
        for number, data in sectors.items():
            file.seek(number * 512)
            file.write(data)
    with opened(path) as file:
        return partitions(GuestDisk(file, DiskFormat.RAW))


def test_primary_and_logical_partitions(tmp_path: Path) -> None:
    found = table_of(
        tmp_path / "disk",
        {
            0: mbr([(0x0C, 2048, 1000), (0x05, 4096, 4000)]),
            4096: mbr([(0x83, 8, 100), (0x05, 1000, 500)]),
            5096: mbr([(0x82, 8, 50)]),
        },
    )
    assert [(one.number, one.start // 512, one.size // 512, one.type) for one in found] == [
        (1, 2048, 1000, "0x0c"),
        (5, 4104, 100, "0x83"),
        (6, 5104, 50, "0x82"),
    ]


@pytest.mark.parametrize(
    ("sectors", "why"),
    [
        ({0: mbr([(0x83, 2048, 100), (0x83, 2100, 100)])}, "partitions 1 and 2 overlap"),
        ({0: mbr([(0x83, 2048, 1 << 30)])}, "partition 1 ends beyond the disk"),
        ({0: mbr([(0x05, 100, 9)]), 100: mbr([(0, 0, 0), (0x05, 0, 9)])}, "form a loop"),
        ({0: mbr([(0x05, 1 << 30, 9)])}, "beyond the end"),
        ({0: mbr([(0xEE, 1, 9)])}, "GPT is missing"),
    ],
)
def test_hostile_tables(tmp_path: Path, sectors: dict[int, bytes], why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        table_of(tmp_path / "disk", sectors)
    with opened(tmp_path / "disk") as file, pytest.raises(HostileImage, match=why):
        find_root(GuestDisk(file, DiskFormat.RAW), "disk")


def test_a_gpt_and_one_whose_partitions_overlap(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    os.truncate(disk, 16 * MIB)
    script = "label: gpt\n1: start=2048, size=4096, type=L\n3: start=8192, size=1024, type=U\n"
    subprocess.run(["/sbin/sfdisk", "-q", disk], input=script.encode(), check=True)
    with opened(disk) as file:
        found = partitions(GuestDisk(file, DiskFormat.RAW))
    assert [(one.number, one.start, one.size) for one in found] == [
        (1, MIB, 2 * MIB),
        (3, 4 * MIB, MIB // 2),
    ]
    with disk.open("r+b") as file:  # the third starts inside the first
        file.seek(1024 + 2 * 128 + 32)
        file.write(struct.pack("<Q", 4000))
    with opened(disk) as file, pytest.raises(Unreadable, match="overlap"):
        partitions(GuestDisk(file, DiskFormat.RAW))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all the kinds that a root file system has."""
    top = tmp_path / "tree"
    (top / "usr/bin").mkdir(parents=True)
    (top / "etc").mkdir()
    (top / "bin").symlink_to("usr/bin")
    (top / "etc/os-release").write_text("ID=debian\nID_LIKE=x\n")
    (top / "usr/bin/tool").write_bytes(random.Random(1).randbytes(3 * MIB + 17))
    (top / "usr/bin/tool").chmod(0o4755)
    os.link(top / "usr/bin/tool", top / "usr/bin/same")
    (top / "long").symlink_to("x" * 200)
    (top / "empty").touch()
    with (top / "holes").open("wb") as file:
        file.seek(20 * MIB)
        file.write(b"middle")
        file.truncate(30 * MIB)
    (top / "many").mkdir()
    for number in range(500):
        (top / f"many/file-{number:04}").touch()
    (top / os.fsdecode(b"odd \xff\xfe\n name")).write_text("odd")
    (top / "äö").write_text("name")
    os.utime(top / "empty", (1000000, 1000000))
    return top


@contextmanager
def system(path: Path) -> Iterator[Ext4]:
    """Open the file system in a file."""
    with opened(path) as file:
        disk = GuestDisk(file, DiskFormat.RAW, budget=1 << 40)
        yield Ext4(disk, 0, disk.size)


def extracted(path: Path, target: Path) -> Path:
    """Return the directory *target* with the files of the file system in *path*."""
    target.mkdir()
    with system(path) as found, (target.parent / "archive.tar").open("w+b") as archive:
        ext4_tar.write(found, archive, lambda done: None)
        archive.seek(0)
        subprocess.run(
            ["env", "LC_ALL=C.UTF-8", "tar", f"--directory={target}", *ext4_tar.OPTIONS],
            stdin=archive,
            check=True,
        )
    return target


def described(top: Path) -> dict[str, tuple[object, ...]]:
    """Return what matters of each file below *top*."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        if path.name == "lost+found":
            continue
        link = str(path.readlink()) if path.is_symlink() else None
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        # mke2fs does not copy the times of directories.
        more = (0, 0) if path.is_dir() else (status.st_nlink, int(status.st_mtime))
        what = (status.st_mode, status.st_uid, status.st_gid, *more)
        found[str(path.relative_to(top))] = (*what, link, data)
    return found


@pytest.mark.parametrize(
    "options",
    [
        ("-b", "4096"),
        ("-b", "1024", "-I", "128"),
        ("-b", "2048", "-O", "64bit,metadata_csum"),
        ("-b", "1024", "-O", "^extents,^64bit"),
        ("-b", "4096", "-O", "^extents,^64bit"),
    ],
    ids=" ".join,
)
def test_all_files_come_out_as_they_went_in(
    tree: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    board_tools.ext4(tree, tmp_path / "img", 24 * MIB, *options)
    out = extracted(tmp_path / "img", tmp_path / "out")
    assert described(out) == described(tree)
    assert (out / "holes").stat().st_blocks < 100


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file capabilities")
def test_owners_and_capabilities_are_kept(tree: Path, tmp_path: Path) -> None:
    value = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
    os.chown(tree / "etc/os-release", 1000, 70000)
    try:
        os.setxattr(tree / "usr/bin/tool", "security.capability", value)
    except OSError:
        pytest.skip("no such attributes here")
    board_tools.ext4(tree, tmp_path / "img", 24 * MIB)
    out = extracted(tmp_path / "img", tmp_path / "out")
    assert os.getxattr(out / "usr/bin/tool", "security.capability") == value
    status = (out / "etc/os-release").stat()
    assert (status.st_uid, status.st_gid) == (1000, 70000)


def test_links_are_followed_inside(tree: Path, tmp_path: Path) -> None:
    (tree / "up").symlink_to("../../../bin/../../etc/os-release")
    (tree / "loop").symlink_to("loop")
    board_tools.ext4(tree, tmp_path / "img", 24 * MIB)
    with system(tmp_path / "img") as found:
        for name in ("etc/os-release", "/usr/../etc/os-release", "bin/../../etc/os-release"):
            inode = found.find(name)
            assert inode is not None
            assert found.read(inode, 9) == b"ID=debian"
        assert found.find("up") is not None
        assert found.find("bin/tool") is not None
        for name in ("nothing", "loop", "etc/os-release/x"):
            assert found.find(name) is None


def changed(path: Path, old: bytes, new: bytes) -> None:
    """Replace all of *old* by *new* in a file."""
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize("name", [b"file-000/", b"file-0000", b"file-00\0a"])
def test_hostile_names_are_an_error(tree: Path, tmp_path: Path, name: bytes) -> None:
    """A slash would lead elsewhere; a name that is there twice could be a link and a directory."""
    board_tools.ext4(tree, tmp_path / "img", 24 * MIB, "-O", "^metadata_csum")
    changed(tmp_path / "img", b"file-0001", name.ljust(9, b"x"))
    with pytest.raises(Unreadable, match="invalid name"):
        extracted(tmp_path / "img", tmp_path / "out")


def test_a_directory_in_two_places_is_an_error(tree: Path, tmp_path: Path) -> None:
    (tree / "linkdir").mkdir()
    board_tools.ext4(tree, tmp_path / "img", 24 * MIB, "-O", "^metadata_csum")
    with system(tmp_path / "img") as found:
        inode = found.find("many")
    assert inode is not None
    words = ["-w", "-R", f"ln <{inode.number}> linkdir/again", str(tmp_path / "img")]
    subprocess.run(["/sbin/debugfs", *words], check=True, capture_output=True)
    with pytest.raises(Unreadable, match="two places"):
        extracted(tmp_path / "img", tmp_path / "out")


def test_damaged_ones_end_in_an_error_or_a_tree(tree: Path, tmp_path: Path) -> None:
    """Whatever bytes there are: no other exception, no file outside, and an end."""
    board_tools.ext4(tree, tmp_path / "img", 24 * MIB)
    sound = (tmp_path / "img").read_bytes()
    dice = random.Random(7)
    places = [at for at in range(1024, 4 * MIB, 4) if any(sound[at : at + 4])]
    for _ in range(40):
        data = bytearray(sound)
        for _ in range(dice.choice((1, 5, 50))):
            at = dice.choice(places)
            data[at] = dice.randrange(256)
        (tmp_path / "img").write_bytes(data)
        try:
            with system(tmp_path / "img") as found, Path(os.devnull).open("wb") as nowhere:
                ext4_tar.write(found, nowhere, lambda done: None)
        except Unreadable:
            continue


def test_features_that_are_not_read_are_named(tree: Path, tmp_path: Path) -> None:
    board_tools.ext4(tree, tmp_path / "img", 24 * MIB, "-O", "inline_data")
    with pytest.raises(Unreadable, match="inline_data"), system(tmp_path / "img"):
        pass
    board_tools.ext4(tree, tmp_path / "img", 24 * MIB)
    words = ["-w", "-R", "feature needs_recovery", str(tmp_path / "img")]
    subprocess.run(["/sbin/debugfs", *words], check=True, capture_output=True)
    with pytest.raises(Unreadable, match="journal to replay"), system(tmp_path / "img"):
        pass


def test_the_root_is_found_on_a_board(tree: Path, tmp_path: Path) -> None:
    board_tools.board(tree, tmp_path / "card.img", 24 * MIB)
    with opened(tmp_path / "card.img") as file:
        found = find_root(GuestDisk(file, DiskFormat.RAW, budget=1 << 40), "card.img")
    assert found.partition.number == 2
    assert found.os_release.startswith(b"ID=debian\n")


def test_none_or_several_roots(tree: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.img"
    shutil.rmtree(tree / "etc")
    board_tools.board(tree, card, 24 * MIB)
    with (
        opened(card) as file,
        pytest.raises(ImageError, match="root file system not found") as caught,
    ):
        find_root(GuestDisk(file, DiskFormat.RAW, budget=1 << 40), "card.img")
    assert "partition 1: FAT" in str(caught.value.detail)
    (tree / "etc").mkdir()
    (tree / "etc/os-release").write_text("ID=debian\n")
    board_tools.ext4(tree, tmp_path / "part", 24 * MIB)
    part = (tmp_path / "part").read_bytes()
    with card.open("wb") as writer:
        writer.write(
            mbr([(0x83, 2048, len(part) // 512), (0x83, 2048 + len(part) // 512, len(part) // 512)])
        )
        writer.seek(MIB)
        writer.write(part + part)
    with opened(card) as file:
        disk = GuestDisk(file, DiskFormat.RAW, budget=1 << 40)
        with pytest.raises(ImageError, match="partitions 1, 2") as caught:
            find_root(disk, "card.img")
        assert "--partition 1" in str(caught.value.hint)
        assert find_root(disk, "card.img", 2).partition.number == 2
        with pytest.raises(ImageError, match="partition 3 not found"):
            find_root(disk, "card.img", 3)


def extents(level: int, entries: list[bytes]) -> bytes:
    """Return a node of an extent tree."""
    return struct.pack("<HHHHI", 0xF30A, len(entries), 340, level, 0) + b"".join(entries)


def altered(tree: Path, path: Path, root: bytes, node: bytes = b"") -> None:
    """Write an ext4 with another root of the extent tree of os-release.

    *node* replaces the first block of usr/bin/tool, whose number takes the place of PLACE.
    """
    board_tools.ext4(tree, path, 24 * MIB, "-b", "4096", "-O", "^metadata_csum")
    with system(path) as found:
        release, tool = found.find("etc/os-release"), found.find("usr/bin/tool")
        assert release is not None
        assert tool is not None
        place = found.runs(tool)[0].place
    number = struct.pack("<I", place // 4096)
    changed(path, release.block, root.replace(b"HERE", number).ljust(60, b"\0"))
    # The size of os-release: 1 TiB.
    data = bytearray(path.read_bytes())
    inode = data.index(root.replace(b"HERE", number)) - 40
    struct.pack_into("<I", data, inode + 108, 1 << 8)
    data[place : place + len(node)] = node.replace(b"HERE", number)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("leaf", "why"),
    [
        ([struct.pack("<IHH4s", 0, 1, 0, b"HERE")] * 340, "out of order"),
        ([struct.pack("<IHH4s", 0, 32769, 0, b"HERE")] * 340, "out of order"),
        ([struct.pack("<IHH4s", 0, 0, 0, b"HERE")] * 340, "out of order"),
        ([], "more space"),
    ],
    ids=["data", "unwritten", "empty extents", "empty node"],
)
def test_a_node_of_an_extent_tree_is_not_used_again(
    tree: Path, tmp_path: Path, leaf: list[bytes], why: str
) -> None:
    index = struct.pack("<I4sHH", 0, b"HERE", 0, 0)
    altered(tree, tmp_path / "img", extents(1, [index] * 4), extents(0, leaf))
    with system(tmp_path / "img") as found:
        inode = found.find("etc/os-release")
        assert inode is not None
        if leaf:
            with pytest.raises(Unreadable, match=why):
                found.runs(inode)
            return
        with pytest.raises(Unreadable, match=why):
            for _ in range(24 * MIB // 4096 * 4):
                found.runs(inode)


def test_the_pieces_of_a_file_and_of_its_index_are_limited(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [struct.pack("<IHH4s", 2 * number, 1, 0, b"HERE") for number in range(340)]
    index = struct.pack("<I4sHH", 0, b"HERE", 0, 0)
    altered(tree, tmp_path / "img", extents(1, [index]), extents(0, pieces))
    with system(tmp_path / "img") as found:
        inode = found.find("etc/os-release")
        assert inode is not None
        assert len(found.runs(inode)) == 340
        monkeypatch.setattr("armvm.images.ext4.MAX_RUNS", 339)
        with pytest.raises(Unreadable, match="too many pieces"):
            found.runs(inode)
        monkeypatch.setattr("armvm.images.ext4._MAX_INDEX_BLOCKS", 0)
        with pytest.raises(Unreadable, match="too many index blocks"):
            found.runs(inode)


def test_no_more_is_read_than_the_superblock_counts_as_used(tree: Path, tmp_path: Path) -> None:
    """The check for free space relies on that number."""
    whole = 24 * MIB // 4096
    same = [struct.pack("<IHHI", number * whole, whole, 0, 0) for number in range(4)]
    altered(tree, tmp_path / "img", extents(0, same))
    data = bytearray((tmp_path / "img").read_bytes())
    struct.pack_into("<I", data, 1024 + 12, whole)  # all blocks are free
    (tmp_path / "img").write_bytes(data)
    with (
        system(tmp_path / "img") as found,
        Path(os.devnull).open("wb") as nowhere,
        pytest.raises(Unreadable, match="more space than its superblock counts"),
    ):
        ext4_tar.write(found, nowhere, lambda done: None)
