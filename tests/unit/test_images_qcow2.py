"""qcow2 headers: real images pass, those that reach outside themselves do not."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base import process
from armvm.base.errors import ArmvmError, HostileImage
from armvm.images.check.qcow2 import inspect, inspect_file
from armvm.settings.size import MAX_DISK

pytestmark = pytest.mark.unit

MIB = 1 << 20


def create(path: Path, *options: str, size: str = "64M") -> Path:
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, size])
    return path


@pytest.mark.parametrize(
    ("options", "version", "cluster"),
    [
        ((), 3, 65536),
        (("-o", "compat=0.10"), 2, 65536),
        (("-o", "cluster_size=512"), 3, 512),
        (("-o", "cluster_size=2M"), 3, 2 * MIB),
        (("-o", "extended_l2=on,cluster_size=128k"), 3, 128 << 10),
        (("-o", "lazy_refcounts=on"), 3, 65536),
        (("-o", "compression_type=zstd"), 3, 65536),
        (("-o", "preallocation=metadata"), 3, 65536),
    ],
)
def test_what_qemu_img_makes(
    tmp_path: Path, options: tuple[str, ...], version: int, cluster: int
) -> None:
    image = create(tmp_path / "a.qcow2", *options)
    found = inspect(image)
    assert (found.version, found.virtual_size, found.cluster_size) == (version, 64 * MIB, cluster)


def test_a_backing_file_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "base.qcow2")
    image = create(tmp_path / "a.qcow2", "-b", str(tmp_path / "base.qcow2"), "-F", "qcow2")
    with pytest.raises(HostileImage, match="backing file") as caught:
        inspect(image)
    assert "qemu-img convert" in (caught.value.hint or "")


@pytest.mark.parametrize("raw", ["on", "off"])
def test_an_external_data_file_is_refused(tmp_path: Path, raw: str) -> None:
    data = tmp_path / "data.raw"
    image = create(tmp_path / "a.qcow2", "-o", f"data_file={data},data_file_raw={raw}")
    with pytest.raises(HostileImage, match="external data file"):
        inspect(image)


def test_encrypted_images_are_refused(tmp_path: Path) -> None:
    image = create(
        tmp_path / "a.qcow2",
        *("--object", "secret,id=s,data=abc"),
        # Not luks: its key derivation times itself, and fails on a busy machine.
        *("-o", "encrypt.format=aes,encrypt.key-secret=s"),
    )
    with pytest.raises(HostileImage, match="encrypted"):
        inspect(image)


def patched(tmp_path: Path, offset: int, value: bytes) -> Path:
    image = create(tmp_path / "a.qcow2")
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    return image


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (0, b"QFI\x00", "not a qcow2"),
        (4, struct.pack(">I", 1), "version 1"),
        (4, struct.pack(">I", 4), "version 4"),
        (8, struct.pack(">Q", 512), "backing file"),
        (16, struct.pack(">I", 8), "backing file"),
        (20, struct.pack(">I", 8), "cluster size"),
        (20, struct.pack(">I", 22), "cluster size"),
        (20, struct.pack(">I", 0xFFFFFFFF), "cluster size"),
        (24, struct.pack(">Q", 0), "disk size 0 bytes"),
        (24, struct.pack(">Q", MAX_DISK + 1), "disk size"),
        (32, struct.pack(">I", 1), "encrypted"),
        (36, struct.pack(">I", 0), "L1 table"),
        (36, struct.pack(">I", 0xFFFFFFFF), "L1 table"),
        (40, struct.pack(">Q", 0), "L1 table"),
        (40, struct.pack(">Q", 65537), "L1 table"),
        (40, struct.pack(">Q", 1 << 40), "beyond the end"),
        (48, struct.pack(">Q", 1 << 62), "beyond the end"),
        (56, struct.pack(">I", 0xFFFF), "refcount table"),
        (60, struct.pack(">IQ", 1, 1 << 50), "snapshot"),
        (60, struct.pack(">IQ", 1 << 30, 65536), "snapshot"),
        (72, struct.pack(">Q", 2), "corrupt"),
        (72, struct.pack(">Q", 4), "external data file"),
        (72, struct.pack(">Q", 1 << 5), "unknown"),
        (72, struct.pack(">Q", 1 << 63), "unknown"),
        (72, struct.pack(">Q", 8), "compression"),
        (96, struct.pack(">I", 7), "refcount order"),
        (100, struct.pack(">I", 72), "header length"),
        (100, struct.pack(">I", 1 << 30), "header length"),
        (104, b"\x01", "compression"),
        (112, struct.pack(">II", 0x44415441, 8), "external data file"),
        (112, struct.pack(">II", 0x0537BE77, 16), "encrypted"),
        (112, struct.pack(">II", 0x12345678, 0xFFFFFFFF), "extension"),
    ],
)
def test_hostile_headers(tmp_path: Path, offset: int, value: bytes, why: str) -> None:
    with pytest.raises(HostileImage, match=why):
        inspect(patched(tmp_path, offset, value))


@pytest.mark.parametrize("length", [0, 3, 4, 71, 72, 103, 104, 111, 112, 4096, 65536])
def test_files_that_end_too_early(tmp_path: Path, length: int) -> None:
    image = create(tmp_path / "a.qcow2")
    with image.open("r+b") as file:
        file.truncate(length)
    with pytest.raises(HostileImage):
        inspect(image)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return create(tmp_path_factory.mktemp("qcow2") / "a.qcow2").read_bytes()


@given(
    st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=8)), max_size=6),
    st.none() | st.integers(0, 400),
)
def test_any_header_gives_a_result_or_our_error(
    sound: bytes, edits: list[tuple[int, bytes]], cut: int | None
) -> None:
    data = bytearray(sound)
    for offset, value in edits:
        data[offset : offset + len(value)] = value
    data = data[:cut]
    try:
        result = inspect_file(io.BytesIO(data), size=len(data), name="x")
    except ArmvmError:
        return
    assert 0 < result.virtual_size <= MAX_DISK
    assert bytes(data[8:20]) == bytes(12)  # no backing file
    assert not data[79] & 4 or data[7] == 2  # no external data file
