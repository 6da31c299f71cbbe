"""Tables of qcow2 images: what QEMU makes passes, what leads out of the file is refused."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armvm.base import process
from armvm.base.errors import ConfigError, DigestMismatch, HostileImage, ImageError
from armvm.base.progress import Quiet
from armvm.images import local_file
from armvm.images.cache.importing import import_file
from armvm.images.cache.store import Cache
from armvm.images.check.qcow2 import inspect
from armvm.images.check.qcow2_tables import check
from armvm.images.resolve import Settings, obtain, resolve
from armvm.provision.image import find
from armvm.provision.machine.plan import check_disk
from armvm.settings.size import MAX_DISK
from armvm.settings.verify import Verify
from tests.image_server import ImageServer, ubuntu_tree
from tests.images_tools import Heard, leftovers, qcow2_image, quick, raw_image

pytestmark = pytest.mark.unit

KIB, MIB = 1 << 10, 1 << 20
#: A cluster of the images here, and where qemu-img puts the L1 table.
CLUSTER = 64 * KIB


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "disk.raw"
    with path.open("wb") as file:
        file.write(random.Random(0).randbytes(2 * MIB + 1) + b"text" * 100_000)
        file.truncate(70 * MIB)
        file.seek(60 * MIB)
        file.write(b"the end")
    return path


def converted(raw: Path, path: Path, *options: str) -> Path:
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, path])
    return path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-c",),
        ("-o", "compat=0.10"),
        ("-c", "-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "extended_l2=on,cluster_size=128k"),
        ("-c", "-o", "compression_type=zstd"),
        ("-o", "preallocation=metadata"),
        ("-o", "preallocation=falloc"),
    ],
)
def test_what_qemu_img_makes(raw: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    image = converted(raw, tmp_path / "a.qcow2", *options)
    assert check(image) == inspect(image)


def test_snapshots_and_what_a_guest_wrote(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"])
    process.run(
        ["qemu-io", "-c", "write 0 3M", "-c", "discard 0 1M", "-c", "write -z 5M 1M", image]
    )
    process.run(["qemu-img", "snapshot", "-c", "a", image])
    process.run(["qemu-io", "-c", "write 1M 3M", image])
    process.run(["qemu-img", "resize", "-q", image, "200G"])
    check(image)


@pytest.mark.parametrize("options", [(), ("-c",), ("-o", "cluster_size=4k")])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_short(
    raw: Path, tmp_path: Path, options: tuple[str, ...], part: float
) -> None:
    image = converted(raw, tmp_path / "a.qcow2", *options)
    os.truncate(image, int(image.stat().st_size * part))
    with pytest.raises(HostileImage, match="beyond the end"):
        check(image)
    found = process.run(["qemu-img", "check", "-f", "qcow2", image], check=False)
    assert found.returncode != 0, "qemu-img check finds it too"


def tables(image: Path) -> tuple[int, int]:
    """Return where the L1 table lies, and the first L2 table."""
    data = image.read_bytes()
    (first,) = struct.unpack_from(">Q", data, 40)
    (second,) = struct.unpack_from(">Q", data, first)
    return first, second & ((1 << 56) - 512)


def patched(image: Path, offset: int, value: int) -> Path:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(">Q", value))
    return image


COPIED, COMPRESSED = 1 << 63, 1 << 62


@pytest.mark.parametrize(
    ("table", "value", "why"),
    [
        (0, COPIED | 1 << 40, "beyond the end"),
        (0, COPIED, None),  # no table at all: zeros
        (0, COPIED | 512, "is invalid"),
        (0, COPIED | 3 * CLUSTER, "overlaps"),  # the L1 table itself, by qemu-img's layout
        (1, COPIED | 1 << 40, "beyond the end"),
        (1, COPIED | 512, "is invalid"),
        (1, COPIED | 3 * CLUSTER, "overlaps"),
        (1, COMPRESSED | 1 << 40, "beyond the end"),
        (1, COMPRESSED | 512, "is invalid"),
        (1, COMPRESSED | ((1 << 62) - 1), "beyond the end"),
    ],
)
def test_entries_that_lead_astray(
    raw: Path, tmp_path: Path, table: int, value: int, why: str | None
) -> None:
    image = converted(raw, tmp_path / "a.qcow2")
    assert tables(image)[0] == 3 * CLUSTER
    patched(image, tables(image)[table], value)
    if why is None:
        check(image)
        return
    with pytest.raises(HostileImage, match=why) as caught:
        check(image)
    assert caught.value.exit_code == 8
    assert caught.value.hint


def test_a_cluster_that_is_used_twice(raw: Path, tmp_path: Path) -> None:
    image = converted(raw, tmp_path / "a.qcow2")
    second = tables(image)[1]
    (entry,) = struct.unpack_from(">Q", image.read_bytes(), second)
    patched(image, second + 8, entry)
    with pytest.raises(HostileImage, match="overlaps"):
        check(image)


def test_a_table_that_is_used_again_and_again(tmp_path: Path) -> None:
    """The work is bounded by the file: a million entries cannot name one table."""
    image = tmp_path / "a.qcow2"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "7T"])
    first = tables(image)[0]
    entries = inspect(image).l1_entries
    with image.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        end = -(-file.tell() // CLUSTER) * CLUSTER
        file.truncate(end + CLUSTER)
        file.seek(first)
        file.write(struct.pack(">Q", COPIED | end) * entries)
    tracemalloc.start()
    try:
        with pytest.raises(HostileImage, match="overlaps"):
            check(image)
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


def test_refcounts_beyond_the_end(raw: Path, tmp_path: Path) -> None:
    image = converted(raw, tmp_path / "a.qcow2")
    (table,) = struct.unpack_from(">Q", image.read_bytes(), 48)
    with pytest.raises(HostileImage, match="refcount block"):
        check(patched(image, table, 1 << 40))


@settings(max_examples=60)
@given(st.data())
def test_any_entry_gives_an_answer(
    tmp_path_factory: pytest.TempPathFactory, raw: Path, data: st.DataObject
) -> None:
    image = tmp_path_factory.getbasetemp() / "mutated.qcow2"
    if not image.exists():
        converted(raw, image)
    before = image.read_bytes()
    place = tables(image)[data.draw(st.sampled_from([0, 1]))] + 8 * data.draw(st.integers(0, 40))
    patched(image, place, data.draw(st.integers(0, (1 << 64) - 1)))
    try:
        check(image)
    except HostileImage as error:
        assert error.hint
    finally:
        image.write_bytes(before)


# ---- wherever an image comes from --------------------------------------------------------------


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    image = qcow2_image(tmp_path / "cut.qcow2")
    os.truncate(image, 300 * KIB)
    return image


def test_a_cut_file_of_ones_own(cut: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(HostileImage, match="beyond the end"):
        resolve(str(cut), Settings(), cache=cache)
    with pytest.raises(HostileImage, match="beyond the end"):
        import_file(cut, "mine", cache=cache, progress=Quiet())
    assert not [name for name in leftovers(cache.root) if "qcow2" in name]


def test_a_cut_file_from_a_server(cut: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with ImageServer(cut.parent) as server:
        source = resolve(f"{server.url}{cut.name}", Settings(web=quick()), cache=cache)
        with pytest.raises(HostileImage, match="beyond the end"):
            obtain(source, cache=cache, progress=Quiet(), web=quick())
    assert leftovers(cache.root) == []


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_file_without_end_is_not_read(tmp_path: Path, format: str) -> None:
    make = raw_image if format == "raw" else qcow2_image
    image = make(tmp_path / "large.img")
    try:
        os.truncate(image, MAX_DISK + 512)
    except OSError:
        pytest.skip("this file system has no files of that size")
    cache, progress = Cache(tmp_path / "cache"), Heard()
    with pytest.raises(HostileImage, match="exceeds 8192"):
        resolve(str(image), Settings(), cache=cache, progress=progress)
    with pytest.raises(HostileImage, match="exceeds 8192"):
        import_file(image, "mine", cache=cache, progress=progress)
    assert progress.tasks == [], "nothing was hashed"


def test_a_plan_knows_what_making_would_refuse(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    image = qcow2_image(tmp_path / "a.qcow2", size="64G")
    source = resolve(str(image), Settings(), cache=cache)
    assert source.virtual_size == 64 << 30
    with pytest.raises(ConfigError, match="smaller"):
        check_disk(8 << 30, source.virtual_size)
    wrong = f"file://{image}#sha256={'0' * 64}"
    with pytest.raises(DigestMismatch):
        resolve(wrong, Settings(), cache=cache)
    raw = raw_image(tmp_path / "b.img")
    assert local_file.examine(raw)[1:] == (raw.stat().st_size, raw.stat().st_size)
    raw.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(ImageError):
            resolve(str(raw), Settings(), cache=cache)


def test_a_cached_image_is_known_to_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "www").mkdir()
    ubuntu_tree(tmp_path / "www", qcow2_image(tmp_path / "a.qcow2", size="64G"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with ImageServer(tmp_path / "www") as server:
        monkeypatch.setenv("ARMVM_MIRROR_UBUNTU", server.url)
        before = find.locate("ubuntu:24.04", Quiet(), Verify.DIGEST)
        find.obtain(before, Quiet())
        after = find.locate("ubuntu:24.04", Quiet(), Verify.DIGEST)
        assert (before.virtual_size, after.virtual_size) == (None, 64 << 30)
        monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
        unusable = find.locate("ubuntu:24.04", Quiet(), Verify.DIGEST)
        assert unusable.virtual_size is None, "a clone of a golden needs no cache"
