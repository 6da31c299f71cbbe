"""Undoing gzip, xz and zstd: bombs end by a limit, holes stay holes, memory is bounded."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import lzma
import random
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from armvm.base import process
from armvm.base.errors import ArmvmError, HostileImage, StorageError
from armvm.images.fetch.decompress import MAX_UNPACKED, RATIO, SPARED, Unpacker

pytestmark = pytest.mark.unit

MIB = 1 << 20
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": zstandard.ZstdCompressor().compress,
}
formats = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


def unpack(
    target: Path,
    data: bytes,
    *,
    pieces: int = 70_000,
    limit: int = 64 << 20,
    room: Callable[[int], None] = lambda _: None,
) -> str | None:
    one = Unpacker(target, name="x", room=room, limit=limit)
    try:
        for start in range(0, len(data), pieces):
            one.feed(data[start : start + pieces])
        return one.finish()
    finally:
        one.close()


@formats
@pytest.mark.parametrize("pieces", [1, 7, 511, 513, 70_000])
def test_what_comes_out_is_what_went_in(
    tmp_path: Path, pack: Callable[[bytes], bytes], pieces: int
) -> None:
    noise = random.Random(0).randbytes
    content = noise(3000) + bytes(300_000) + b"text" * 50_000 + noise(10)
    data = pack(content[:100_000]) + pack(content[100_000:])
    digest = unpack(tmp_path / "out", data, pieces=pieces)
    assert (tmp_path / "out").read_bytes() == content
    assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


@formats
def test_zeros_become_holes(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    unpack(tmp_path / "out", pack(b"x" + bytes(40 * MIB) + b"y" + bytes(5 * MIB)))
    status = (tmp_path / "out").stat()
    assert status.st_size == 45 * MIB + 2
    assert status.st_blocks * 512 < MIB


@formats
def test_a_bomb_ends_by_the_limit(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(HostileImage, match=r"more than 8\.0 MiB"):
        unpack(tmp_path / "out", pack(bytes(50 * MIB)), limit=8 * MIB)
    assert (tmp_path / "out").stat().st_size <= 8 * MIB


@formats
def test_a_bomb_that_is_no_hole_ends_where_the_room_does(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    asked: list[int] = []

    def room(count: int) -> None:
        asked.append(count)
        if len(asked) > 2:
            raise StorageError("full")

    with pytest.raises(StorageError):
        unpack(tmp_path / "out", pack(b"bomb" * (50 * MIB)), room=room, limit=1 << 40)
    assert asked == [64 * MIB] * 3
    assert (tmp_path / "out").stat().st_size <= 130 * MIB


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd"])
def test_a_bomb_ends_early(tmp_path: Path, kind: str) -> None:
    """Below the absolute limit, the output is limited by the bytes received."""
    zeros = bytes(16 * MIB)
    piece = gzip.compress(zeros, 9) if kind == "gzip" else PACKERS[kind](zeros)
    one = Unpacker(tmp_path / "out", name="x", room=lambda _: None, spared=64 * MIB)
    fed = 0
    with contextlib.closing(one), pytest.raises(HostileImage, match="times its size"):
        for _ in range(200):
            one.feed(piece)
            fed += len(piece)
    assert fed * RATIO < 100 * MIB
    assert (tmp_path / "out").stat().st_size <= 64 * MIB
    assert SPARED <= MAX_UNPACKED // 32


def test_a_disk_of_zeros_is_no_bomb(tmp_path: Path) -> None:
    data = gzip.compress(bytes(60 * MIB), 1) + gzip.compress(random.Random(0).randbytes(2 * MIB), 1)
    one = Unpacker(tmp_path / "out", name="x", room=lambda _: None, spared=61 * MIB)
    for start in range(0, len(data), 70_000):
        one.feed(data[start : start + 70_000])
    one.feed(gzip.compress(bytes(200 * MIB), 1))
    assert one.finish()


MEMORY = """
import resource, sys
from pathlib import Path
from armvm.images.fetch.decompress import Unpacker
one = Unpacker(Path(sys.argv[2]), name="x", room=lambda _: None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[1], "rb") as file:
    while chunk := file.read(256 << 10):
        one.feed(chunk)
one.finish()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@formats
def test_a_bomb_takes_no_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    source = tmp_path / "bomb"
    source.write_bytes(pack(bytes(300 * MIB)))
    grown = int(process.run([sys.executable, "-c", MEMORY, source, tmp_path / "out"]).text)
    assert grown < 60, "MiB"
    assert (tmp_path / "out").stat().st_size == 300 * MIB


def test_xz_that_asks_for_much_memory(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 * MIB}]
    data = lzma.compress(b"x" * 1000, filters=filters)
    with pytest.raises(HostileImage, match="cannot be unpacked"):
        unpack(tmp_path / "out", data)


@pytest.mark.parametrize("data", [b"", b"QFI\xfb", b"QFI\xfb" + bytes(100), b"\x1f", b"\xfd7zX"])
def test_what_is_not_packed_is_left_alone(tmp_path: Path, data: bytes) -> None:
    assert unpack(tmp_path / "out", data, pieces=3) is None
    assert not (tmp_path / "out").exists()


def damaged() -> Iterator[bytes]:
    dice = random.Random(5)
    content = random.Random(0).randbytes(2000) + bytes(9000)
    for pack in PACKERS.values():
        for _ in range(40):
            data = bytearray(pack(content))
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            yield bytes(data[: dice.choice((None, None, dice.randrange(6, len(data)))) or None])


def test_damaged_files_give_an_answer(tmp_path: Path) -> None:
    ends = set()
    for data in damaged():
        try:
            ends.add(type(unpack(tmp_path / "out", data)).__name__)
        except ArmvmError as error:
            ends.add(type(error).__name__)
    assert ends == {"str", "NoneType", "HostileImage"}


@given(
    st.sampled_from([b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=200)
)
def test_any_bytes_give_an_answer(
    tmp_path_factory: pytest.TempPathFactory, magic: bytes, rest: bytes
) -> None:
    target = tmp_path_factory.getbasetemp() / "unpacked"
    with contextlib.suppress(HostileImage):
        unpack(target, magic + rest)


def test_it_is_measured_in_mib() -> None:
    """The memory test reads ru_maxrss in KiB, as Linux gives it."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 10_000
