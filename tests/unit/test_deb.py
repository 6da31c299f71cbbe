"""Packages without compression have the same contents."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from armvm.base.errors import BuildFailed
from armvm.usermode.rootfs import deb

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


def make(tmp_path: Path, *options: str, name: str = "thing_1%3a2_arm64.deb") -> Path:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
    (tree / "DEBIAN/control").write_text(
        "Package: thing\nVersion: 1:2\nArchitecture: arm64\nMaintainer: T <t@example.org>\n"
        "Description: none\n"
    )
    (tree / "usr").mkdir(exist_ok=True)
    (tree / "usr/data").write_bytes(b"many bytes " * 100_001)
    subprocess.run(["dpkg-deb", *options, "--build", tree, tmp_path / name], check=True)
    return tmp_path / name


def contents(file: Path) -> tuple[str, str, bytes]:
    def told(*words: str) -> bytes:
        return subprocess.run(["dpkg-deb", *words, file], check=True, capture_output=True).stdout

    return told("--field").decode(), told("--contents").decode(), told("--fsys-tarfile")


@pytest.mark.parametrize("kind", ["xz", "gzip", "zstd", "none"])
def test_contents_stay(tmp_path: Path, kind: str) -> None:
    packed = make(tmp_path, f"-Z{kind}")
    (tmp_path / "out").mkdir()
    deb.unpacked([packed], tmp_path / "out")
    (plain,) = (tmp_path / "out").iterdir()
    assert (plain.name, deb.name_of(plain)) == (packed.name, "thing")
    assert contents(plain) == contents(packed)
    if kind != "zstd" or shutil.which("zstd"):
        assert b"data.tar  " in plain.read_bytes()


@pytest.mark.parametrize("damage", ["empty", "cut", "length", "data"])
def test_a_damaged_package_is_an_error(tmp_path: Path, damage: str) -> None:
    file = make(tmp_path, "-Zxz")
    data = file.read_bytes()
    at = data.index(b"data.tar.xz")
    file.write_bytes(
        {
            "empty": b"",
            "cut": data[:-100],
            "length": data[: at + 48] + b"x" * 10 + data[at + 58 :],
            "data": data[: at + 60] + b"\xff" * 60 + data[at + 120 :],
        }[damage]
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(BuildFailed, match=r"thing_1%3a2_arm64\.deb cannot be unpacked"):
        deb.unpacked([file], tmp_path / "out")
