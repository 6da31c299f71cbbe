"""``rootfs create``: the command it runs, valid locations, and errors before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from armvm.base.errors import ConfigError, Conflict, MissingCapability, NotFound, PermissionDenied
from armvm.cli.main import _split
from armvm.provision.image.recipe import made
from armvm.provision.rootfs import create, sysroot
from armvm.provision.rootfs import place as rootfs_place
from armvm.usermode.rootfs import bootstrap, build_log
from armvm.usermode.rootfs.bootstrap import Arch, Tool, Variant
from armvm.usermode.rootfs.build import Mode
from armvm.usermode.rootfs.distros import DEBIAN, UBUNTU, Distro
from tests.support import armvm


def words(distro: Distro = DEBIAN, **options: object) -> list[list[str]]:
    values = {"suite": "bookworm", "arch": Arch.ARMHF, "mode": Mode.ROOT, **options}
    order = bootstrap.Order(distro=distro, **values)  # type: ignore[arg-type]
    found = bootstrap.commands(Path("/w/root"), order)
    return [[str(word) for word in argv] for argv in found]


def test_mmdebstrap_is_asked_for_the_essential_packages() -> None:
    (argv,) = words(packages=("git", "g++"))
    assert argv[:5] == ["unshare", "--mount", "--propagation", "private", "mmdebstrap"]
    assert {"--mode=root", "--variant=minbase", "--arch=armhf", "--include=git,g++"} <= set(argv)
    assert argv[-2:] == ["bookworm", "/w/root"], "mmdebstrap chooses Debian's archives and keys"
    assert not [word for word in argv if word.startswith("--keyring")]


def test_an_ordinary_user_has_no_mount_namespace_of_roots() -> None:
    (argv,) = words(mode=Mode.UNSHARE, variant=Variant.BUILDD, mirror="http://m/debian")
    assert argv[0] == "mmdebstrap"
    assert {"--mode=unshare", "--variant=buildd"} <= set(argv)
    assert argv[-1] == "http://m/debian"


def test_ubuntus_archive_and_keys_are_named() -> None:
    (argv,) = words(UBUNTU, suite="noble", arch=Arch.ARM64, keyring=Path("/k.gpg"))
    assert "--keyring=/k.gpg" in argv
    assert argv[-3:] == [
        f"deb http://ports.ubuntu.com/ubuntu-ports {suite} main universe"
        for suite in ("noble", "noble-updates", "noble-security")
    ]


def test_debootstrap_has_two_stages() -> None:
    first, second = words(tool=Tool.DEBOOTSTRAP, packages=("git",))
    assert first[4:] == [
        *("debootstrap", "--foreign", "--arch=armhf", "--variant=minbase"),
        *(f"--keyring={DEBIAN.keyring}", "--components=main", "--include=git"),
        *("bookworm", "/w/root", "http://deb.debian.org/debian"),
    ]
    assert second[4:] == ["chroot", "/w/root", "/debootstrap/debootstrap", "--second-stage"]
    plain, _ = words(tool=Tool.DEBOOTSTRAP, variant=Variant.IMPORTANT)
    assert not [word for word in plain if word.startswith(("--variant", "--include"))]


def test_the_tool_is_the_one_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(MissingCapability, match="mmdebstrap"):
        Tool.here(Mode.ROOT, str(tmp_path))
    (tmp_path / "debootstrap").touch(mode=0o755)
    assert Tool.here(Mode.ROOT, str(tmp_path)) is Tool.DEBOOTSTRAP
    with pytest.raises(MissingCapability, match="requires root"):
        Tool.here(Mode.UNSHARE, str(tmp_path))
    (tmp_path / "mmdebstrap").touch(mode=0o755)
    assert Tool.here(Mode.ROOT, str(tmp_path)) is Tool.MMDEBSTRAP


def test_a_sysroot_is_unpacked_only() -> None:
    argv = [
        str(one)
        for one in sysroot.command(
            made("debian:12", packages=("libcurl4",)), "armhf", Path("/w/a.tar"), Mode.UNSHARE
        )
    ]
    assert {"--variant=extract", "--arch=armhf", "--format=tar", "--include=?essential"} <= set(
        argv
    )
    assert [one for one in argv if one.startswith("--include=libstdc++6,") and "libcurl4" in one]
    assert argv[-2:] == ["bookworm", "/w/a.tar"]


# ---- what is asked for ---------------------------------------------------------------------


def test_what_is_wanted() -> None:
    asked = create.wanted("ubuntu:noble", arch="armhf", packages=("git", "curl"))
    assert asked.recipe.plain == "ubuntu-24.04"
    assert (asked.arch, asked.variant, asked.bootable) == (Arch.ARMHF, Variant.MINBASE, False)


def test_a_package_that_every_image_has_is_installed_in_a_root_file_system_too() -> None:
    asked = create.wanted("debian:12", packages=("rsync", "sudo", "git"))
    assert asked.packages == ("git", "rsync", "sudo")
    bootable = create.wanted("debian:12", packages=("rsync", "git"), bootable=True)
    assert bootable.packages == ("git",)
    assert "rsync" in bootable.recipe.packages


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arch": "amd64"}, "amd64"),
        ({"arch": "--help"}, "unsupported architecture"),
        ({"variant": "huge"}, "unknown variant"),
        ({"bootable": True, "arch": "armhf"}, "requires arm64"),
        ({"bootable": True, "variant": "buildd"}, "--bootable"),
        ({"packages": ("-remove",)}, "package"),
        ({"packages": ("a,b",)}, "package"),
        ({"mirror": "/etc/passwd"}, "archive"),
    ],
    ids=str,
)
def test_what_cannot_be_wanted(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create.wanted("debian:12", **options)  # type: ignore[arg-type]


def test_an_image_without_a_recipe() -> None:
    with pytest.raises(NotFound):
        create.wanted("fedora:43")


# ---- where it may be -----------------------------------------------------------------------


def test_a_place_is_empty_or_not_there(tmp_path: Path) -> None:
    place = rootfs_place.free_place
    assert place(tmp_path / "new", Mode.ROOT) == tmp_path.resolve() / "new"
    (tmp_path / "empty").mkdir()
    assert place(tmp_path / "empty", Mode.ROOT).name == "empty"
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "full/x").mkdir(parents=True)
    for name in ("link", "dangling", "file", "full"):
        with pytest.raises(Conflict):
            place(tmp_path / name, Mode.ROOT)
    for path in (tmp_path / "no/where", tmp_path / "file/x"):
        with pytest.raises(NotFound):
            place(path, Mode.ROOT)
    with pytest.raises(Conflict):
        place(Path("/"), Mode.ROOT)
    with pytest.raises(Conflict, match="mount point"):
        place(Path("/proc"), Mode.ROOT)


def test_an_ordinary_users_ids_must_get_there(tmp_path: Path) -> None:
    open_place = tmp_path / "open"
    open_place.mkdir(mode=0o755)
    open_place.chmod(0o750)
    with pytest.raises(PermissionDenied, match="other users cannot enter") as caught:
        rootfs_place.free_place(open_place / "x", Mode.UNSHARE)
    assert "o+x" in str(caught.value.hint)
    if os.geteuid() == 0:
        os.chown(open_place, 12345, 12345)
        with pytest.raises(PermissionDenied, match="belongs to another user"):
            rootfs_place.free_place(open_place / "x", Mode.UNSHARE)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["x", "--arch", "x86"], 3),
        (["x", "--image", "windows:11"], 4),
        (["x", "--package", "a b"], 3),
    ],
    ids=str,
)
def test_refusals(options: list[str], code: int, tmp_path: Path) -> None:
    armvm("rootfs", "create", *options, cwd=tmp_path).failed(code)
    assert list(tmp_path.iterdir()) == []


# ---- small things --------------------------------------------------------------------------


def test_a_log_that_ends_in_an_error() -> None:
    missing = build_log.failure(["E: Unable to locate package nope"], DEBIAN, "bookworm", "armhf")
    assert isinstance(missing, NotFound)
    assert "armhf" in str(missing.hint)
    missing = build_log.failure(["E: Couldn't find these debs: nope"], DEBIAN, "bookworm")
    assert "'nope'" in missing.message
    mirror = ["E: Failed to fetch x  Mirror sync in progress?"]
    syncing = build_log.failure(mirror, DEBIAN, "bookworm")
    assert "try again" in str(syncing.hint)
    for words in ("NO_PUBKEY 80061F2BC1122002", "Missing key BEEF4480, which is needed"):
        log = [f"Err:1 http://x noble InRelease {words}", "E: Failed to fetch http://x/InRelease"]
        unsigned = build_log.failure(log, DEBIAN, "bookworm")
        assert DEBIAN.keyring_package in str(unsigned.hint)


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        (["rootfs", "enter", "d", "--", "sh", "--json"], ["rootfs", "enter", "d"]),
        (["--debug", "rootfs", "enter", "d", "--", "x", "--"], ["--debug", "rootfs", "enter", "d"]),
        (["rootfs", "create", "--", "d"], ["rootfs", "create", "--", "d"]),
        (["emulate", "x", "--", "y"], ["emulate", "x", "--", "y"]),
        (["ssh", "m", "--", "y"], ["ssh", "m"]),
    ],
    ids=str,
)
def test_what_follows_two_dashes_is_the_commands(line: list[str], ours: list[str]) -> None:
    own, command = _split(line)
    assert own == ours
    assert command == line[len(ours) + 1 :]
