"""``armvm image build`` and the cache: cached images are not rebuilt; names are unambiguous."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armvm.base.errors import Conflict
from armvm.base.progress import Quiet
from armvm.images.cache.store import Cache
from armvm.provision.image import find
from armvm.provision.image.local import build_local
from armvm.provision.image.recipe import Recipe, made
from tests import schemas
from tests.build_tools import can_build, served
from tests.images_tools import qcow2_image
from tests.support import Result, armvm

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*words: str | Path) -> Result:
        return armvm("image", *words, env={"XDG_CACHE_HOME": str(tmp_path / "home")}, cwd=tmp_path)

    return call


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "home" / "armvm" / "images")


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Options for an archive with nothing in it: whatever would be built fails at once."""
    with served(tmp_path_factory.mktemp("nowhere")) as (url, _):
        yield "--mirror", url


def kept(cache: Cache, tmp_path: Path, wanted: Recipe, name: str | None = None) -> Path:
    """Put an image into the cache as if it had been built."""
    file = qcow2_image(tmp_path / "built.qcow2")
    entry = cache.store_local(
        file, name=name or str(wanted.name), recipe=wanted.digest, system=wanted.system
    )
    return entry.path


def test_what_is_cached_is_not_built_again(run: Run, cache: Cache, tmp_path: Path) -> None:
    wanted = made("debian:13", packages=("docker.io",), kernel="generic", size="8G")
    path = kept(cache, tmp_path, wanted)
    told = schemas.check(
        "image build",
        run(
            *("build", "debian:13", "--size", "8G", "--kernel", "generic"),
            *("--package", "docker.io", "--package", "curl", "--json"),
        )
        .ok()
        .json,
    )
    assert told == {
        "reference": "local:debian-13-generic-8g+docker.io",
        "name": "debian-13-generic-8g+docker.io",
        "path": str(path),
        "recipe": wanted.digest,
        "packages": ["docker.io"],
        "kernel": "generic",
        "size": 8 << 30,
        "seconds": 0.0,
    }
    assert "cached" in run("build", "debian-13-generic-8g+docker.io").ok().out


def test_the_reference_works_wherever_images_are_named(
    run: Run, cache: Cache, tmp_path: Path
) -> None:
    wanted = made("debian:13", packages=("docker.io",))
    path = kept(cache, tmp_path, wanted)
    reference = "local:debian-13+docker.io"
    pulled = run("pull", reference, "--json").ok().json
    assert pulled["path"] == str(path)
    assert pulled["verified"] == "built-here"
    (row,) = run("list", "--json", "--connect", "test:///default").ok().json
    assert (row["reference"], row["system"]) == (reference, "debian 13")
    run("verify", reference).ok()
    assert str(path) in run("rm", reference, "--connect", "test:///default").ok().out
    assert not path.exists()


def test_a_cached_image_is_known_to_a_plan(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    before = find.locate("local:debian-12", Quiet())
    path = kept(cache, tmp_path, made("debian:12"))
    after = find.locate("local:debian-12", Quiet())
    assert (before.digest, before.size, before.virtual_size) == (None, None, None)
    assert after.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert after.size == path.stat().st_size
    assert after.virtual_size is not None
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert find.locate("local:debian-12", Quiet()).digest is None


def test_references_are_completed(cache: Cache, tmp_path: Path) -> None:
    kept(cache, tmp_path, made("debian:13", packages=("docker.io",)))

    def complete(*words: str) -> list[str]:
        line = " ".join(("armvm", *words))
        done = armvm(
            env={
                "_ARMVM_COMPLETE": "complete_bash",
                "COMP_WORDS": line,
                "COMP_CWORD": str(len(words)),
                "XDG_CACHE_HOME": str(tmp_path / "home"),
            }
        )
        return done.out.split()

    # bash takes the colon for the end of a word, so the line ends before it.
    assert "local:debian-13+docker.io" in complete("create", "--image", "local")
    assert "debian-13" in complete("image", "build", "de")
    assert "ubuntu-24.04" in complete("image", "build", "u")
    assert complete("image", "build", "--kernel", "g") == ["generic"]


@can_build
def test_another_recipe_is_another_image(
    run: Run, cache: Cache, tmp_path: Path, nowhere: tuple[str, str]
) -> None:
    kept(cache, tmp_path, made("debian:13", packages=("docker.io",)))
    for words in (
        ("build", "debian:13"),
        ("build", "debian:13", "--package", "docker.io", "--kernel", "generic"),
    ):
        assert "cached" not in run(*words, *nowhere).failed(8).out


# ---- names of one's own --------------------------------------------------------------------


def test_an_image_can_have_a_name_of_ones_own(run: Run, cache: Cache, tmp_path: Path) -> None:
    wanted = made("debian:12", packages=("g++",))
    path = kept(cache, tmp_path, wanted, "tools")
    words = ("build", "debian:12", "--package", "g++", "--as")
    told = schemas.check("image build", run(*words, "tools", "--json").ok().json)
    assert (told["reference"], told["path"]) == ("local:tools", str(path))
    assert run(*words, "local:tools", "--json").ok().json == told
    pulled = run("pull", "local:tools", "--json").ok().json
    assert (pulled["path"], pulled["verified"]) == (str(path), "built-here")


def test_a_name_never_means_another_recipe(run: Run, cache: Cache, tmp_path: Path) -> None:
    kept(cache, tmp_path, made("debian:12", packages=("g++",)), "tools")
    refused = run("build", "debian:12", "--package", "gcc", "--as", "tools").failed(5)
    assert "another recipe" in refused.err
    assert "--force" in refused.err
    # Names of recipes are nobody's, whether there is such an image or not.
    for name in ("debian-13", "debian-13+git", "debian-12-generic", "ubuntu-24.04"):
        assert "name of another recipe" in run("build", "debian:12", "--as", name).failed(5).err
    file = qcow2_image(tmp_path / "mine.qcow2")
    for name in ("debian-13+git", "debian-13-8g", "ubuntu-24.04"):
        assert "reserved for armvm image build" in run("import", file, "--as", name).failed(5).err
    run("import", file, "--as", "tools").failed(5)


@can_build
def test_an_imported_image_is_not_overwritten(
    run: Run, tmp_path: Path, nowhere: tuple[str, str]
) -> None:
    file = qcow2_image(tmp_path / "mine.qcow2")
    run("import", file, "--as", "mine").ok()
    run("build", "debian:12", "--as", "mine").failed(5)
    # With --force it would be built; that fails here, and the image is still there.
    run("build", "debian:12", "--as", "mine", "--force", *nowhere).failed(8)
    run("verify", "local:mine").ok()


def test_a_recipe_without_a_name_wants_one(run: Run) -> None:
    assert "--as" in run("build", "debian:12", "--package", "g++").failed(2).err
    run("build", "debian:12", "--as", "../x").failed(3)
    run("build", "debian:12", "--as", "x", "--output", "y").failed(2)
    refused = run("build", "debian:12", "--as", "x", "--keyring", "y").failed(3)
    assert "debian-archive-keyring" in refused.err


def test_a_recipe_that_is_misspelt_says_its_name(run: Run) -> None:
    assert "debian-13+a1+b1" in run("pull", "local:debian-13+b1+a1").failed(4).err


# ---- files ---------------------------------------------------------------------------------


def test_a_cached_image_is_copied_to_a_file(run: Run, cache: Cache, tmp_path: Path) -> None:
    path = kept(cache, tmp_path, made("debian:13"))
    out = tmp_path / "out" / "x.qcow2"
    out.parent.mkdir()
    told = schemas.check(
        "image build", run("build", "debian:13", "--output", "out/x.qcow2", "--json").ok().json
    )
    assert (told["reference"], told["path"], told["seconds"]) == (None, str(out), 0.0)
    assert out.read_bytes() == path.read_bytes()
    assert "--force" in run("build", "debian:13", "-o", out).failed(5).err
    run("build", "debian:13", "-o", out.parent).failed(5)
    run("build", "debian:13", "-o", tmp_path / "no" / "x").failed(4)


@can_build
def test_force_builds_a_file_anew(
    run: Run, cache: Cache, tmp_path: Path, nowhere: tuple[str, str]
) -> None:
    """So that it is of today's packages. A build that fails leaves the older file."""
    kept(cache, tmp_path, made("debian:13"))
    out = tmp_path / "out" / "x.qcow2"
    out.parent.mkdir()
    out.write_text("older")
    run("build", "debian:13", "-o", out, "--force", *nowhere).failed(8)
    assert out.read_text() == "older"
    assert list(out.parent.iterdir()) == [out]


def test_the_archive_of_the_environment(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(cache, tmp_path, made("debian:13"))
    kept(cache, tmp_path, made("ubuntu:24.04"))
    monkeypatch.setenv("ARMVM_ARCHIVE_DEBIAN", "http://m/debian")
    monkeypatch.setenv("ARMVM_ARCHIVE_UBUNTU", "http://m/ports")
    for name, mirror in (("debian:13", "http://m/debian"), ("ubuntu:24.04", "http://m/ports")):
        built = build_local(made(name), force=False, progress=Quiet(), cache=cache)
        assert built.recipe.mirror == mirror
    own = made("debian:13", mirror="http://own/debian")
    built = build_local(own, force=False, progress=Quiet(), cache=cache)
    assert built.recipe.mirror == "http://own/debian", "the command line is stronger"
    with pytest.raises(Conflict):
        build_local(own, name="debian-12", force=False, progress=Quiet(), cache=cache)
