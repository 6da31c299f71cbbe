"""Looking into a root file system: its links never lead out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from armvm.usermode.rootfs import tree
from tests.elf_tools import elf_file, exit_with


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with a secret beside it."""
    (tmp_path / "secret").write_text("the host's")
    top = tmp_path / "root"
    for name in ("etc", "usr/bin", "usr/lib"):
        (top / name).mkdir(parents=True)
    (top / "bin").symlink_to("usr/bin")
    (top / "etc/passwd").write_text("its own")
    return top


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../../../../../etc/passwd",
        "../etc/passwd",
        "/bin/../../etc/./passwd",
        "passwd",
    ],
)
def test_a_link_means_a_place_in_there(root: Path, target: str) -> None:
    (root / "etc/link").symlink_to(target)
    assert tree.read(root, "etc/link") == b"its own"
    assert tree.find(root, "/etc/link") == root / "etc/passwd"


def test_what_is_outside_is_not_found(root: Path, tmp_path: Path) -> None:
    (root / "etc/link").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to("..")
    for name in ("etc/link", "../secret", "up/secret", "etc/../../secret", "etc/passwd/x", "x\0y"):
        assert tree.read(root, name) is None, name
    assert tree.find(root, "up") == root


def test_links_in_a_ring_end(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    (root / "deep").symlink_to("deep/deep")
    assert tree.find(root, "a") is None
    assert tree.find(root, "deep") is None


def test_only_plain_files_are_read(root: Path) -> None:
    os.mkfifo(root / "etc/os-release")
    assert tree.os_release(root) == {}
    (root / "etc/os-release").unlink()
    (root / "etc/os-release").symlink_to("/dev/zero")
    assert tree.os_release(root) == {}


def test_the_architecture_is_that_of_its_programs(root: Path) -> None:
    assert tree.architecture(root) is None
    (root / "usr/bin/true").write_bytes(elf_file(40, bits=32))
    (root / "usr/bin/sh").symlink_to("/usr/bin/true")
    assert tree.architecture(root) == "arm"
    (root / "usr/bin/dpkg").write_bytes(exit_with(0))
    assert tree.architecture(root) == "aarch64"


def test_os_release_and_dpkgs_architectures(root: Path) -> None:
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n# no\nBAD-KEY=x\n\xff')
    assert tree.os_release(root) == {"ID": "debian", "VERSION_ID": "12"}
    assert tree.foreign_architectures(root) == set()
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/arch").write_text("arm64\narmhf\n")
    assert tree.foreign_architectures(root) == {"arm64", "armhf"}
