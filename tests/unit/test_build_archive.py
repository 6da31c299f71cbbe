"""Builds from a package archive of the test's own, laid out and signed as Ubuntu's is.

mmdebstrap and apt are real; there are no packages behind the lists, so that every build ends
where they would be fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from armvm.base.errors import BuildFailed, ConfigError
from armvm.base.progress import Quiet
from armvm.provision.image.build import build_image
from armvm.provision.image.recipe import made
from armvm.usermode.rootfs.distros import UBUNTU
from tests.build_tools import can_build, lay_out, served
from tests.openpgp_tools import Gpg
from tests.support import armvm

pytestmark = can_build


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A served archive: its URL, what was asked of it, its key's file and another's."""

    root: Path
    url: str
    asked: list[str]
    keyring: Path
    armored: Path
    other: Path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    root = tmp_path_factory.mktemp("ports")
    with Gpg() as gpg, served(root) as (url, asked):
        key, other = gpg.key("Ports"), gpg.key("Other")
        keyring, wrong = root / "keys.gpg", root / "other.gpg"
        keyring.write_bytes(gpg.export(key))
        wrong.write_bytes(gpg.export(other))
        armored = root / "keys"
        armored.write_bytes(gpg.export(key, armor=True))
        lay_out(
            root,
            gpg,
            key,
            suites=("noble", "noble-updates", "noble-security"),
            components=("main", "universe"),
            packages=dict.fromkeys([*made("ubuntu:24.04").packages, "huge-thing"], 10_000)
            | {"huge-thing": 9_000_000},
        )
        yield Archive(
            root=root, url=url, asked=asked, keyring=keyring, armored=armored, other=wrong
        )


def build(archive: Archive, output: Path, *packages: str, keyring: Path | None = None) -> None:
    """Build Ubuntu from the archive into a file."""
    recipe = made("ubuntu:24.04", packages=packages, mirror=archive.url)
    build_image(recipe, output, progress=Quiet(), private=True, keyring=keyring or archive.keyring)


def test_ubuntu_is_asked_for_as_its_archive_is_laid_out(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="Ubuntu noble") as caught:
        build(archive, tmp_path / "x.qcow2")
    assert "404" in (caught.value.detail or "")
    for suite in ("noble", "noble-updates", "noble-security"):
        assert f"/dists/{suite}/InRelease" in archive.asked
    for component in ("main", "universe"):
        lists = [path for path in archive.asked if f"/noble/{component}/binary-arm64/" in path]
        assert lists, component
    # All packages were found, and their files asked for.
    for package in ("linux-image-virtual", "ubuntu-keyring", "shim-signed", "qemu-guest-agent"):
        assert f"/pool/{package}_1_arm64.deb" in archive.asked
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_there_is_not_is_named(archive: Archive, tmp_path: Path) -> None:
    """As a program, with a keyring in the other of its two forms."""
    refused = armvm(
        *("image", "build", "ubuntu:24.04", "--mirror", archive.url, "--output", "x.qcow2"),
        *("--keyring", archive.armored, "--package", "no-such-thing", "--package", "huge-thing"),
        env={"XDG_CACHE_HOME": str(tmp_path / "cache")},
        cwd=tmp_path,
    ).failed(4)
    assert "package 'no-such-thing' not found in Ubuntu noble\n" in refused.err
    assert "packages.ubuntu.com" in refused.err
    assert not (tmp_path / "x.qcow2").exists()


def test_packages_that_do_not_fit_are_told_before_they_are_fetched(
    archive: Archive, tmp_path: Path
) -> None:
    before = len(archive.asked)
    with pytest.raises(ConfigError, match="do not fit on a disk of 3G") as caught:
        build(archive, tmp_path / "x.qcow2", "huge-thing")
    # 9 GB of it, and 10 MB of each of the others.
    assert "--size 9" in (caught.value.hint or "")
    assert not [path for path in archive.asked[before:] if path.startswith("/pool/huge")]
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_another_key_signed_is_refused(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        build(archive, tmp_path / "x.qcow2", keyring=archive.other)
    assert re.search("NO_PUBKEY|Missing key", caught.value.detail or ""), "gpgv's words, or sqv's"
    assert UBUNTU.keyring_package in (caught.value.hint or "")


def test_an_archive_without_the_suite_says_so(archive: Archive, tmp_path: Path) -> None:
    """As archive.ubuntu.com, which has no arm64: its lists are asked for, and are not there."""
    recipe = made("ubuntu:24.04", mirror=f"{archive.url}/elsewhere")
    with pytest.raises(BuildFailed) as caught:
        build_image(recipe, tmp_path / "x", progress=Quiet(), private=True, keyring=archive.keyring)
    assert "Release file" in (caught.value.detail or "")
    assert "ports.ubuntu.com" in (caught.value.hint or "")
