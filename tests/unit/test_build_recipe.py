"""Building an image: the disk's layout, and failures that leave nothing."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from armvm.base import process
from armvm.base.errors import BuildFailed, CommandFailed, HostileImage, StorageError
from armvm.base.progress import Quiet
from armvm.images import disk
from armvm.provision.image.build import build_image
from armvm.provision.image.recipe import Recipe
from armvm.provision.image.workspace import check_space
from armvm.settings.size import GIB
from armvm.usermode.rootfs import build_log
from tests.build_tools import can_build, left_by_builds

MIB = 1 << 20


# ---- the disk ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [512 * MIB, 3 * GIB, 3 * GIB + 12345 * 512])
def test_partitions_are_aligned_apart_and_on_the_disk(size: int) -> None:
    table = disk.partition_table(size)
    found = {
        int(number): (int(start) * 512, int(length) * 512)
        for number, start, length in re.findall(r"(\d+): start=(\d+), size=(\d+)", table)
    }
    assert set(found) == {1, 15}
    (esp, esp_size), (root, root_size) = found[15], found[1]
    assert esp % MIB == root % MIB == root_size % MIB == 0
    assert esp + esp_size <= root
    assert root + root_size <= size - 33 * 512, "room for the second partition table"
    assert size - (root + root_size) < 3 * MIB, "and no more than that is lost"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Just enough of a root file system for a disk."""
    root = tmp_path / "tree"
    for name in disk.DEBIAN.files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 1000)
    script = root / "usr" / "bin" / "program"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o4755)
    os.utime(script, (1_600_000_001, 1_600_000_001))
    return root


def test_a_disk_holds_the_files_as_they_were(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    size = 300 * MIB
    disk.make(tree, image, size=size, on_phase=lambda text: None)
    assert not list(tmp_path.glob("*.raw"))
    assert image.stat().st_blocks * 512 < 40 * MIB, "sparse"

    raw = tmp_path / "check.raw"
    process.run(["qemu-img", "convert", "-O", "raw", image, raw])
    assert raw.stat().st_size == size
    dump = process.run(["sfdisk", "--dump", raw]).text
    assert "label: gpt" in dump
    assert disk.ESP_TYPE in dump
    assert disk.ROOT_TYPE in dump

    boot_sector = raw.read_bytes()[disk.ESP_START :][:512]
    assert boot_sector[82:90] == b"FAT32   "
    assert boot_sector[446:] == bytes(64) + b"\x55\xaa", "no partition table inside a partition"
    esp = f"{raw}@@{disk.ESP_START}"
    for source, target in disk.DEBIAN.files.items():
        content = process.run(["mtype", "-i", esp, f"::{target}"]).stdout
        assert content == (tree / source).read_bytes()
    grub = process.run(["mtype", "-i", esp, f"::{disk.DEBIAN.grub_cfg}"]).text
    assert f"--set=root {disk.ROOT_LABEL}" in grub

    root = f"{raw}?offset={disk.ROOT_START}"
    process.run(["e2fsck", "-fn", root])
    header = process.run(["debugfs", "-R", "stats -h", root]).text
    assert re.search(rf"volume name:\s+{disk.ROOT_LABEL}\n", header)
    features = re.search(r"features:\s+(.*)", header)
    assert features is not None
    assert {"resize_inode", "has_journal", "extent"} <= set(features[1].split())
    assert not {"orphan_file", "metadata_csum_seed"} & set(features[1].split()), "GRUB 2.06"
    status = process.run(["debugfs", "-R", "stat /usr/bin/program", root]).text
    assert re.search(r"Mode:\s+04755", status)
    # Byte-compiled Python is only valid while its source keeps its time stamp.
    assert f"mtime: {1_600_000_001:#x}" in status


def test_ubuntus_files_have_other_names(tree: Path, tmp_path: Path) -> None:
    for name in disk.UBUNTU.files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
    image, raw = tmp_path / "disk.qcow2", tmp_path / "check.raw"
    disk.make(tree, image, size=300 * MIB, boot=disk.UBUNTU, on_phase=lambda text: None)
    process.run(["qemu-img", "convert", "-O", "raw", image, raw])
    esp = f"{raw}@@{disk.ESP_START}"
    for source, target in disk.UBUNTU.files.items():
        assert process.run(["mtype", "-i", esp, f"::{target}"]).text == source
    assert "set prefix" in process.run(["mtype", "-i", esp, "::EFI/ubuntu/grub.cfg"]).text


def test_a_link_out_of_the_root_file_system_is_not_followed(tree: Path, tmp_path: Path) -> None:
    """Else a package could put a file of the host's on the disk."""
    shim = tree / next(iter(disk.DEBIAN.files))
    shim.unlink()
    shim.symlink_to("/etc/hostname")
    with pytest.raises(HostileImage, match="/etc/hostname"):
        disk.make(tree, tmp_path / "d.qcow2", size=300 * MIB, on_phase=lambda text: None)


@pytest.mark.parametrize("content", [0, 300 * MIB, 3 * GIB, 40 * GIB])
def test_a_disk_of_the_size_told_has_room(content: int) -> None:
    size = disk.size_for(content)
    journal, per_disk = 64 * MIB, (1 / 64 + 1 / 100) * size
    assert disk.root_size(size) - journal - per_disk >= content
    assert size % (128 * MIB) == 0


def test_files_that_do_not_fit_are_an_error(tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_bytes(random.Random(0).randbytes(40 * MIB))
    with pytest.raises(CommandFailed, match="mke2fs") as caught:
        disk.make(tree, tmp_path / "d.qcow2", size=100 * MIB, on_phase=lambda text: None)
    assert "Could not allocate" in (caught.value.detail or ""), "by which the build knows it"


# ---- failures ------------------------------------------------------------------------------


def test_too_little_room_is_said_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"only .* is free") as caught:
        check_space(tmp_path, needed=1 << 60)
    assert caught.value.hint
    check_space(tmp_path, needed=1)


def test_of_a_long_log_the_lines_around_the_first_error_are_shown() -> None:
    log = [f"Unpacking package{number} ..." for number in range(500)]
    assert build_log.extract(log)[-1] == log[-1]
    log[200] = "mokutil: error while loading shared libraries: libz.so.1"
    log[203] = "dpkg: error processing archive shim-signed.deb (--unpack):"
    log[499] = "E: mmdebstrap failed to run"
    shown = build_log.extract(log)
    assert log[200] in shown
    assert log[203] in shown
    assert len(shown) <= 20


@can_build
def test_a_failed_build_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    output = tmp_path / "debian-12.qcow2"
    # Nothing listens on the discard port of the loopback interface.
    recipe = Recipe(mirror="http://127.0.0.1:9/debian")
    with pytest.raises(BuildFailed, match="bookworm") as caught:
        build_image(recipe, output, progress=Quiet(), private=True)
    assert list(tmp_path.iterdir()) == []
    assert left_by_builds() == []
    detail = caught.value.detail or ""
    assert "127.0.0.1" in detail
    assert "apt-get -q -y" not in detail, "no script text"
    assert "mirror" in (caught.value.hint or "")
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
