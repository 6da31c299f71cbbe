"""Recipes: their names, their digests, and invalid ones."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base import process
from armvm.base.errors import ConfigError, NotFound
from armvm.images.reference import LocalReference, parse
from armvm.provision.image.recipe import PLAIN, Recipe, made, named
from armvm.provision.image.recipe_input import check_package, check_packages
from armvm.settings.size import GIB, MIB
from armvm.usermode.rootfs import build
from armvm.usermode.rootfs.distros import DISTROS, Kernel

PACKAGES = st.from_regex(r"[a-z0-9][a-z0-9+.-]{0,12}[a-z0-9+.]", fullmatch=True)


# ---- the digest ----------------------------------------------------------------------------


def test_the_digest_is_the_same_in_another_process() -> None:
    code = "from armvm.provision.image.recipe import Recipe; print(Recipe().digest)"
    other = process.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}).text.strip()
    assert other == Recipe().digest
    assert re.fullmatch("[0-9a-f]{64}", other)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "13"},
        {"distro": "ubuntu", "version": "24.04"},
        {"extra": ("tree",)},
        {"size": 4 * GIB},
        {"kernel": Kernel.GENERIC},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_image_changes_the_digest(change: dict[str, object]) -> None:
    assert replace(Recipe(), **change).digest != Recipe().digest  # type: ignore[arg-type]


def test_the_same_packages_from_elsewhere_are_the_same_image() -> None:
    """An image built with --mirror is the one that create looks for."""
    assert Recipe(mirror="http://mirror.example/debian").digest == Recipe().digest


def test_the_order_of_packages_makes_no_other_image() -> None:
    one = made("debian:13", packages=("tree", "git", "tree"))
    two = made("debian-13", packages=("git", "tree"))
    assert one == two
    assert one.digest == two.digest


def test_what_every_image_has_is_no_package_more() -> None:
    assert made("debian:12", packages=("curl", "linux-image-cloud-arm64")) == PLAIN["debian-12"]
    # Two kernels are something else.
    assert made("debian:12", packages=("linux-image-arm64",)).name == "debian-12+linux-image-arm64"


@pytest.mark.parametrize("name", PLAIN)
def test_no_package_is_named_twice(name: str) -> None:
    packages = PLAIN[name].packages
    assert len(set(packages)) == len(packages)
    assert all(check_package(one) for one in packages)


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "suite"),
    [
        ("debian-12", "debian-12", "bookworm"),
        ("debian:12", "debian-12", "bookworm"),
        ("debian:trixie", "debian-13", "trixie"),
        ("local:debian-13", "debian-13", "trixie"),
        ("ubuntu:24.04", "ubuntu-24.04", "noble"),
        ("ubuntu:noble", "ubuntu-24.04", "noble"),
        ("debian-13+git", "debian-13+git", "trixie"),
    ],
)
def test_what_people_write(text: str, name: str, suite: str) -> None:
    assert made(text).name == name
    assert made(text).suite == suite


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "debian-13"),
        ({"kernel": "cloud", "size": "3G"}, "debian-13"),
        ({"kernel": "generic"}, "debian-13-generic"),
        ({"size": "8"}, "debian-13-8g"),
        ({"size": "3.5G"}, "debian-13-3584m"),
        ({"packages": ("tree", "docker.io")}, "debian-13+docker.io+tree"),
        (
            {"packages": ("git",), "kernel": "generic", "size": "10GiB"},
            "debian-13-generic-10g+git",
        ),
    ],
)
def test_every_choice_is_in_the_name(options: dict[str, object], name: str) -> None:
    wanted = made("debian:13", **options)  # type: ignore[arg-type]
    assert wanted.name == name
    assert named(name) == wanted, "and read back from it"
    assert parse(f"local:{name}") == LocalReference(text=f"local:{name}", name=name)


@given(
    st.sampled_from(sorted(PLAIN)),
    st.lists(PACKAGES, max_size=4),
    st.sampled_from(["cloud", "generic"]),
    st.integers(1, 1024),
)
def test_a_name_is_one_recipe(base: str, packages: list[str], kernel: str, size: int) -> None:
    wanted = made(base, packages=tuple(packages), kernel=kernel, size=f"{size}G")
    if wanted.name is None:
        assert any("+" in one for one in wanted.extra) or sum(map(len, wanted.extra)) > 20
    else:
        assert named(wanted.name) == wanted
        parse(f"local:{wanted.name}")


@pytest.mark.parametrize("packages", [("g++",), tuple(f"package{n}" for n in range(12))])
def test_some_recipes_have_no_name(packages: tuple[str, ...]) -> None:
    assert made("debian:13", packages=packages).name is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("debian-13+tree+git", "debian-13+git+tree"),
        ("debian-13+curl", "debian-13"),
        ("debian-13-3g", "debian-13"),
        ("debian-13-2048m", "debian-13-2g"),
        ("debian-9", "debian-12"),
        ("ubuntu:noble-updates", "ubuntu-24.04"),
        ("fedora:43", "debian-12"),
        ("debian:13/20250101", "debian-12"),
        ("../debian-12", "debian-12"),
        ("debian-12\x1b[31m", "debian-12"),
        ("", "debian-12"),
    ],
)
def test_another_spelling_is_no_other_image(name: str, hint: str) -> None:
    with pytest.raises(NotFound) as caught:
        made(name)
    assert hint in (caught.value.hint or "")
    assert "\x1b" not in caught.value.message


@given(st.text(max_size=40) | st.from_regex(r"debian-1[23].{0,30}"))
def test_any_text_gives_a_recipe_or_an_error(text: str) -> None:
    try:
        wanted = made(text)
    except (NotFound, ConfigError):
        return
    assert wanted.plain in PLAIN


# ---- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", "-y", "--option", "tree-", "a", "Tree", "tree=1.0", "tree:amd64", "tree/sid"),
        *("./x.deb", "/tmp/x.deb", "tree git", "tree\n", "t*", "?essential", "~i", "a^", "$(id)"),
        *("tree;id", "`id`", "tree\x00", "é", "x" * 200),
    ],
)
def test_what_is_no_package_name(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid package name") as caught:
        made("debian:13", packages=(name,))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["docker.io", "g++", "libstdc++6", "0ad", "libc6-dev"])
def test_what_is_a_package_name(name: str) -> None:
    assert made("debian:13", packages=(name,)).extra == (name,)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        *(("100M", "range (1G to 1T)"), ("0", "default is 3G")),
        *(("2000G", "range (1G to 1T)"), ("99999999T", "--disk may be larger")),
        *(("big", "20G"), ("-1", "")),
    ],
)
def test_sizes_that_are_refused(size: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made("debian:13", size=size)
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_a_size_is_whole_mebibytes() -> None:
    assert made("debian:13", size=f"{2 * GIB / GIB + 0.0001:.4f}G").size % MIB == 0


@pytest.mark.parametrize(
    "url",
    [
        *("-", "--option", "/etc/passwd", "deb http://x y z", "http://x y", "ftp://x/debian"),
        *(
            "http://x\ndeb http://y z main",
            "file:///srv/debian",
            "http://[signed-by=/x]",
            "http://",
        ),
    ],
)
def test_what_is_no_archive(url: str) -> None:
    """mmdebstrap takes files, standard input and lines of sources.list for one too."""
    with pytest.raises(ConfigError, match="invalid package archive URL"):
        made("debian:13", mirror=url)


def test_there_are_two_kernels() -> None:
    with pytest.raises(ConfigError) as caught:
        made("debian:13", kernel="huge")
    assert "known: cloud, generic" in caught.value.message
    assert made("debian:13", kernel="generic").packages[0] == "linux-image-arm64"
    assert made("ubuntu:24.04").packages[0] == "linux-image-virtual"


# ---- the scripts ---------------------------------------------------------------------------


@pytest.mark.parametrize("own", [one.scripts for one in DISTROS.values()])
def test_the_scripts_are_valid_shell_and_fit_in_one_argument(own: str | None) -> None:
    text = build.scripts(own)
    process.run(["sh", "-n"], input=text.encode())
    assert len(text.encode()) < 128 * 1024, "Linux' limit for one argument"
    assert not re.findall(r"https?://", text), "they name no mirror"


def test_ubuntus_script_comes_between_settings_and_the_end() -> None:
    text = build.scripts("ubuntu")
    places = [text.index(mark) for mark in ("/etc/default/grub.d", '"Ubuntu"', "umount -l")]
    assert places == sorted(places)
    assert '"Ubuntu"' not in build.scripts()


def test_packages_are_separated_by_commas_or_repeated() -> None:
    assert check_packages(["make,gcc", " gcc , g++"]) == ("g++", "gcc", "make")
    assert check_packages([]) == ()
    for wrong in ("", "gcc,", "gcc make", "-y", "gcc=1", "./x.deb", "a;b", "gcc-"):
        with pytest.raises(ConfigError, match="invalid package name"):
            check_packages([wrong])
