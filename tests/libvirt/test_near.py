"""A base on the same file system as the image: its blocks are shared, nothing is copied."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libvirt.world import KEY, make_image, virsh
from tests.support import armvm, fresh_name

MIB = 1 << 20


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """A small file system whose files can share blocks."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("there is no mkfs.xfs (xfsprogs)")
    disk, directory = tmp_path / "xfs.img", tmp_path / "xfs"
    directory.mkdir()
    with disk.open("wb") as file:
        file.truncate(600 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", disk], check=True)
    done = subprocess.run(["mount", "-o", "loop", disk, directory], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def used(directory: Path) -> int:
    """Return the bytes that are taken on a file system."""
    status = os.statvfs(directory)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_the_base_shares_the_images_blocks(xfs: Path, tmp_path: Path) -> None:
    pool, directory = fresh_name("armvm-near"), xfs / "pool"
    key = tmp_path / "key.pub"
    key.write_text(KEY)
    image = make_image(xfs / "image.qcow2", size=200 * MIB)
    size = image.stat().st_size
    virsh("pool-define-as", pool, "dir", "--target", directory)
    try:
        virsh("pool-build", pool)
        virsh("pool-start", pool)
        before = used(xfs)
        name = fresh_name("armvm-near")
        made = armvm(
            *("create", "--no-start", "--name", name, "--image", image, "--pool", pool),
            *("--ssh-key", key, "--connect", "qemu:///system"),
        ).ok()
        assert "copying the image" not in made.err
        os.sync()
        (base,) = directory.glob("base-sha256-*.qcow2")
        assert base.stat().st_size == size > 200 * MIB
        assert base.read_bytes() == image.read_bytes()
        assert used(xfs) - before < size // 4, "the blocks are shared"
        assert base.stat().st_ino != image.stat().st_ino, (
            "what is written to one is the other's not"
        )
        assert "qcow2" in virsh("vol-dumpxml", "--pool", pool, base.name)
        assert [one.name for one in directory.iterdir() if one.name.startswith(".")] == []
        armvm("delete", "--yes", name, "--pool", pool, "--connect", "qemu:///system").ok()
    finally:
        virsh("pool-destroy", pool, check=False)
        virsh("pool-undefine", pool)
