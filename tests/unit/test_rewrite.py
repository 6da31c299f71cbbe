"""A disk with other files on its root partition: the rest of it stays, or grows if it has to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from armvm.base.errors import ConfigError
from armvm.images import disk
from armvm.images.board import BoardRoot, find_root
from armvm.images.check.formats import DiskFormat
from armvm.images.check.guest_disk import GuestDisk, opened
from armvm.images.check.partitions import partitions
from armvm.images.rewrite import rewrite
from tests import board_tools
from tests.board_tools import MIB

pytestmark = pytest.mark.skipif(
    shutil.which("mformat") is None
    or shutil.which("mke2fs", path=f"{os.environ['PATH']}:/sbin") is None
    or shutil.which("qemu-img") is None,
    reason="needs mtools, mke2fs and qemu-img",
)

#: Text that looks like an option, and is not UTF-8.
LABEL = b"-odd \xff"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "etc").mkdir(parents=True)
    (top / "etc/os-release").write_text("ID=debian\n")
    return top


def gpt(tree: Path, target: Path, *more: str) -> None:
    """Write a disk with a GPT: an EFI system partition, a root partition, and *more*."""
    part = target.with_name("part")
    board_tools.ext4(tree, part, 192 * MIB, "-L", os.fsdecode(LABEL), "-b", "4096")
    with target.open("wb") as file:
        file.truncate(220 * MIB)
        file.seek(5 * MIB)
        file.write(b"the boot loader")
    lines = [
        "label: gpt",
        "15: start=8192, size=8192, type=U",
        "1: start=16384, size=393216",
        *more,
    ]
    subprocess.run(
        ["sfdisk", "--quiet", target], input="\n".join(lines) + "\n", text=True, check=True
    )
    subprocess.run(
        ["dd", f"if={part}", f"of={target}", "bs=1M", "seek=8", "conv=notrunc", "status=none"],
        check=True,
    )


def written(old: Path, tree: Path, used: int) -> tuple[BoardRoot, BoardRoot, Path]:
    """Return the root file systems of a disk before and after, and the new disk, converted."""
    new = old.with_name("new.qcow2")
    with opened(old) as file:
        source = GuestDisk(file, DiskFormat.RAW, budget=1 << 60)
        before = find_root(source, "old")
        rewrite(source, before, tree, new, used=used, inside=(), on_phase=lambda text: None)
    raw = old.with_name("new.img")
    subprocess.run(["qemu-img", "convert", "-O", "raw", new, raw], check=True)
    with opened(raw) as file:
        after = find_root(GuestDisk(file, DiskFormat.RAW, budget=1 << 60), "new")
        found = after.system.find("etc/new")
        assert found is not None
        assert after.system.read(found, 10) == b"new"
    return before, after, raw


def head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8 * MIB)


def test_what_refers_to_it_finds_the_new_one(tree: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.img"
    gpt(tree, old)
    (tree / "etc/new").write_text("new")
    before, after, new = written(old, tree, MIB)
    assert after.system.uuid == before.system.uuid
    assert after.system.label == before.system.label == LABEL
    assert after.partition == before.partition
    assert new.stat().st_size == old.stat().st_size
    assert head(new) == head(old)


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
def test_a_partition_grows(tree: Path, tmp_path: Path, kind: str) -> None:
    old = tmp_path / "old.img"
    gpt(tree, old) if kind == "gpt" else board_tools.board(tree, old, 192 * MIB)
    (tree / "etc/new").write_text("new")
    needed = 300 * MIB
    before, after, new = written(old, tree, needed)
    assert after.partition.size == disk.root_size(disk.size_for(needed))
    assert new.stat().st_size - old.stat().st_size == after.partition.size - before.partition.size
    assert (after.partition.start, after.partition.type) == (
        before.partition.start,
        before.partition.type,
    )
    done = subprocess.run(["sfdisk", "--verify", new], check=True, capture_output=True, text=True)
    assert "No errors detected" in done.stdout
    with opened(new) as file:
        table = partitions(GuestDisk(file, DiskFormat.RAW))
    assert len(table) == 2
    if kind == "gpt":
        told = [
            subprocess.run(["sfdisk", "--json", one], check=True, capture_output=True).stdout
            for one in (old, new)
        ]
        ids = [[word for word in one.split(b'"') if len(word) == 36] for one in told]
        assert ids[0] == ids[1], "the partitions keep their UUIDs"


def test_a_partition_before_another_cannot_grow(tree: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.img"
    gpt(tree, old, "2: start=409600, size=8192")
    with pytest.raises(ConfigError, match="partition 1, which cannot grow"):
        written(old, tree, 300 * MIB)
