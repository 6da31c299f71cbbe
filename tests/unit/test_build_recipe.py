"""Building an image: the recipe's digest, the disk's layout, and failures that leave nothing."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from armvm import process
from armvm.errors import BuildFailed, CommandFailed, StorageError
from armvm.images import disk
from armvm.progress import Quiet
from armvm.provision.build import GIB, VERSIONS, Recipe, build_image, check_space
from armvm.usermode import binfmt, rootfs

MIB = 1 << 20


# ---- the recipe ----------------------------------------------------------------------------


def test_the_digest_is_the_same_in_another_process() -> None:
    code = "from armvm.provision.build import Recipe; print(Recipe().digest)"
    other = process.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}).text.strip()
    assert other == Recipe().digest
    assert re.fullmatch("[0-9a-f]{64}", other)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "13"},
        {"packages": (*rootfs.PACKAGES, "tree")},
        {"size": 4 * GIB},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_image_changes_the_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(Recipe(), **change).digest != Recipe().digest  # type: ignore[arg-type]


def test_the_same_packages_from_elsewhere_are_the_same_image() -> None:
    """An image built with --mirror is the one that create looks for."""
    assert Recipe(mirror="http://mirror.example/debian").digest == Recipe().digest


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_a_suite(version: str) -> None:
    recipe = Recipe(version=version)
    assert recipe.suite == {"12": "bookworm", "13": "trixie"}[version]
    assert recipe.reference == f"local:debian-{version}"


def test_no_package_is_named_twice() -> None:
    assert len(set(rootfs.PACKAGES)) == len(rootfs.PACKAGES)


# ---- the scripts ---------------------------------------------------------------------------


def test_the_scripts_are_valid_shell_and_fit_in_one_argument() -> None:
    text = rootfs.scripts()
    process.run(["sh", "-n"], input=text.encode())
    assert len(text.encode()) < 128 * 1024, "Linux' limit for one argument"


def test_the_scripts_name_no_mirror() -> None:
    assert not re.findall(r"https?://", rootfs.scripts())


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
    for name in disk.ESP_FILES:
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
    for source, target in disk.ESP_FILES.items():
        content = process.run(["mtype", "-i", esp, f"::{target}"]).stdout
        assert content == (tree / source).read_bytes()
    grub = process.run(["mtype", "-i", esp, f"::{disk.ESP_GRUB_CFG_PATH}"]).text
    assert f"--set=root {disk.ROOT_LABEL}" in grub

    root = f"{raw}?offset={disk.ROOT_START}"
    process.run(["e2fsck", "-fn", root])
    header = process.run(["dumpe2fs", "-h", root]).text
    assert re.search(rf"volume name:\s+{disk.ROOT_LABEL}\n", header)
    features = re.search(r"features:\s+(.*)", header)
    assert features is not None
    assert {"resize_inode", "has_journal", "extent"} <= set(features[1].split())
    assert not {"orphan_file", "metadata_csum_seed"} & set(features[1].split()), "GRUB 2.06"
    status = process.run(["debugfs", "-R", "stat /usr/bin/program", root]).text
    assert re.search(r"Mode:\s+04755", status)
    # Byte-compiled Python is only valid while its source keeps its time stamp.
    assert f"mtime: {1_600_000_001:#x}" in status


def test_files_that_do_not_fit_are_an_error(tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_bytes(os.urandom(40 * MIB))
    with pytest.raises(CommandFailed, match="mke2fs"):
        disk.make(tree, tmp_path / "d.qcow2", size=100 * MIB, on_phase=lambda text: None)


# ---- failures ------------------------------------------------------------------------------


def test_too_little_room_is_said_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"has .* left") as caught:
        check_space(tmp_path, needed=1 << 60)
    assert caught.value.hint
    check_space(tmp_path, needed=1)


def test_of_a_long_log_the_lines_around_the_first_error_are_shown() -> None:
    log = [f"Unpacking package{number} ..." for number in range(500)]
    assert rootfs.extract(log)[-1] == log[-1]
    log[200] = "mokutil: error while loading shared libraries: libz.so.1"
    log[203] = "dpkg: error processing archive shim-signed.deb (--unpack):"
    log[499] = "E: mmdebstrap failed to run"
    shown = rootfs.extract(log)
    assert log[200] in shown
    assert log[203] in shown
    assert len(shown) <= 20


@pytest.mark.skipif(
    shutil.which("mmdebstrap") is None
    or os.geteuid() != 0
    or (not binfmt.is_native() and binfmt.aarch64_handler() is None),
    reason="needs root, mmdebstrap and a binfmt handler",
)
def test_a_failed_build_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    output = tmp_path / "cache" / "debian-12.qcow2"
    # Nothing listens on the discard port of the loopback interface.
    recipe = Recipe(mirror="http://127.0.0.1:9/debian")
    with pytest.raises(BuildFailed, match="bookworm") as caught:
        build_image(recipe, output, progress=Quiet())
    assert list(output.parent.iterdir()) == []
    detail = caught.value.detail or ""
    assert "127.0.0.1" in detail
    assert "apt-get -q -y" not in detail, "no script text"
    assert "mirror" in (caught.value.hint or "")
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
