"""``image import --bootable``: which boards' images are refused, and what changes in the others."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
from pathlib import Path

import pytest

from armvm.base.errors import (
    ArmvmError,
    ConfigError,
    Conflict,
    DigestMismatch,
    HostileImage,
    ImageError,
    NotFound,
)
from armvm.base.progress import Quiet
from armvm.images.cache.store import Cache
from armvm.provision.rootfs import board
from armvm.provision.rootfs.from_board import import_board
from tests import board_tools
from tests.board_tools import FSTAB, MIB
from tests.build_tools import left_by_builds
from tests.elf_tools import elf_file, exit_with
from tests.support import armvm, environment

pytestmark = pytest.mark.skipif(
    shutil.which("mformat") is None
    or shutil.which("mke2fs", path=f"{os.environ['PATH']}:/sbin") is None,
    reason="needs mtools and mke2fs",
)

RELEASE = 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12"\nVERSION_ID="12"\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files like those of a board's root file system, as far as they are looked at first."""
    top = tmp_path / "tree"
    files = {
        "etc/os-release": RELEASE,
        "etc/fstab": FSTAB,
        "boot/vmlinuz-6.12.25+rpt-rpi-v8": "",
        "lib/modules/6.12.25+rpt-rpi-v8/modules.dep": "",
        "lib/modules/6.1.0-28-arm64/modules.dep": "",
        "lib/systemd/system/userconfig.service": "",
        "etc/init.d/resize2fs_once": "",
    }
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "usr/bin").mkdir(parents=True)
    (top / "usr/bin/dpkg").write_bytes(exit_with(0))
    return top


def refused(
    file: Path, tmp_path: Path, kind: type[ArmvmError], match: str, digest: str | None = None
) -> ArmvmError:
    """Import *file*, which fails, and check that nothing is left behind; return the error."""
    cache = Cache(tmp_path / "cache")
    with pytest.raises(kind, match=match) as caught:
        import_board(
            file,
            "pi",
            sha256=digest,
            progress=Quiet(),
            cache=cache,
        )
    assert not cache.entries()
    assert left_by_builds() == []
    return caught.value


@pytest.mark.parametrize(
    ("program", "cpu"),
    [(elf_file(40, bits=32), "arm"), (elf_file(62), "x86_64"), (elf_file(243), "riscv64")],
)
def test_another_cpu(tree: Path, tmp_path: Path, program: bytes, cpu: str) -> None:
    (tree / "usr/bin/dpkg").write_bytes(program)
    board_tools.board(tree, tmp_path / "card.img", 8 * MIB)
    error = refused(tmp_path / "card.img", tmp_path, ImageError, "board image for another CPU")
    assert f"its programs are for {cpu};" in error.message


def test_another_cpu_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "raspios-trixie-armhf-lite.img").write_bytes(b"x")
    refused(tmp_path / "raspios-trixie-armhf-lite.img", tmp_path, ImageError, "for armhf")


@pytest.mark.parametrize(
    ("release", "dpkg"),
    [('ID=buildroot\nPRETTY_NAME="Buildroot 2026.02"\n', True), (RELEASE, False)],
)
def test_a_system_without_debians_packages(
    tree: Path, tmp_path: Path, release: str, dpkg: bool
) -> None:
    (tree / "etc/os-release").write_text(release)
    (tree / "bin").mkdir()
    (tree / "bin/sh").write_bytes(exit_with(0))
    if not dpkg:
        (tree / "usr/bin/dpkg").unlink()
    board_tools.board(tree, tmp_path / "card.img", 8 * MIB)
    refused(tmp_path / "card.img", tmp_path, ImageError, "only to Debian, Ubuntu")


def test_packed_ones_are_unpacked_and_digests_checked(tree: Path, tmp_path: Path) -> None:
    (tree / "etc/os-release").write_text("ID=buildroot\n")
    board_tools.board(tree, tmp_path / "card.img", 8 * MIB)
    data = lzma.compress((tmp_path / "card.img").read_bytes(), preset=0)
    packed = tmp_path / "card.img.xz"
    packed.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    refused(packed, tmp_path, ImageError, "contains .?buildroot", digest)
    refused(packed, tmp_path, DigestMismatch, "digest|sha256", "sha256:" + "0" * 64)
    packed.write_bytes(data[:-100])
    refused(packed, tmp_path, HostileImage, "cannot be unpacked")


def test_what_is_no_image(tmp_path: Path) -> None:
    refused(tmp_path / "none.img", tmp_path, NotFound, "not found")
    refused(tmp_path, tmp_path, ConfigError, "is a directory")
    (tmp_path / "text.img").write_text("hello\n" * 1000)
    refused(tmp_path / "text.img", tmp_path, HostileImage, "is text")
    (tmp_path / "card.zip").write_bytes(b"PK\x03\x04" + bytes(600))
    assert "unzip" in str(refused(tmp_path / "card.zip", tmp_path, HostileImage, "zip").hint)
    with pytest.raises(Conflict, match="reserved"):
        import_board(tmp_path / "none.img", "debian-12", progress=Quiet())


def test_without_the_option_a_board_is_imported_with_a_warning(tree: Path, tmp_path: Path) -> None:
    board_tools.board(tree, tmp_path / "card.img", 8 * MIB)
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    done = armvm("image", "import", tmp_path / "card.img", "--as", "card", env=env).ok()
    assert "use --bootable" in done.err


def test_options_that_need_another(tmp_path: Path) -> None:
    words = ("image", "import", tmp_path / "x", "--as", "pi", "--partition", "2")
    assert "require --bootable" in armvm(*words).failed(2).err


def test_what_changes(tree: Path) -> None:
    found = board.changes(tree)
    assert found.kernels == ("6.12.25+rpt-rpi-v8",)
    assert found.services == ("resize2fs_once.service", "userconfig.service")
    assert found.mounts == ("/boot/firmware",)


def test_fstab_keeps_what_is_not_on_the_card() -> None:
    more = (
        "# a comment\n/swapfile none swap sw 0 0\n/dev/sda1 /mnt ext4 nofail 0 0\n"
        "nas:/export /nas nfs rw 0 0\n//nas/share /smb cifs rw 0 0\nLABEL=x /x\x1b ext4 ro 0 0\n"
        "short line\n"
    )
    text, left_out = board.new_fstab((FSTAB + more).encode())
    kept = [line.split()[0] for line in text.splitlines() if not line.startswith("#")]
    assert kept == ["proc", "tmpfs", "/swapfile"]
    assert left_out == ("/boot/firmware", "/mnt", "/nas", "/smb", "/x")
    assert "# not mounted here, it is on the board's card: PARTUUID=5e3da3da-01" in text
    assert "# not mounted here, it is on the network: nas:/export" in text
    assert "\x1b" not in text
    assert board.new_fstab(b"# nothing\n") == ("", ())
