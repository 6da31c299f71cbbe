"""Images in a real registry: pushed, pulled, pulled again, and what is no image."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry_tools import Front, serving, unpacked
from tests.support import Result, armvm


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry's host and port."""
    program = unpacked(tmp_path_factory.mktemp("docker-registry"))
    with serving(program, tmp_path_factory.mktemp("registry")) as host:
        yield host


class Cache:
    """armvm with a cache of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def image(self, *words: str | Path) -> Result:
        return armvm("image", *words, env={"XDG_CACHE_HOME": str(self.directory)})

    def listed(self) -> dict[str, str]:
        """Return the digests of the images by their references."""
        return {one["reference"]: one["digest"] for one in self.image("list", "--json").ok().json}


@pytest.fixture
def here(tmp_path: Path) -> Cache:
    """A cache with the image local:tools."""
    cache = Cache(tmp_path / "here")
    raw = tmp_path / "disk.raw"
    raw.write_bytes(random.Random(7).randbytes(1 << 20) + bytes(3 << 20))
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "disk.qcow2"],
        check=True,
    )
    cache.image("import", tmp_path / "disk.qcow2", "--as", "tools").ok()
    return cache


@pytest.fixture
def there(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "there")


def test_there_and_back(here: Cache, there: Cache, registry: str) -> None:
    place = f"oci://{registry}/images/tools:v1"
    pushed = here.image("push", "local:tools", place, "--json").ok().json
    assert pushed["sent"] is True
    assert pushed["content"] == here.listed()["local:tools"]
    again = here.image("push", "local:tools", place, "--json").ok().json
    assert again == {**pushed, "sent": False}

    pulled = there.image("pull", place, "--json").ok().json
    assert (pulled["reference"], pulled["digest"]) == ("local:tools", pushed["content"])
    assert pulled["verified"] == "none"
    there.image("verify").ok()
    assert list((there.directory / "armvm" / "blobs").glob("sha256-*")) == []
    assert "downloading" not in there.image("pull", place).ok().err, "it is here already"

    pinned = f"oci://{registry}/images/tools@{pushed['digest']}"
    named = there.image("pull", pinned, "--as", "pinned", "--json").ok().json
    assert (named["reference"], named["verified"]) == ("local:pinned", "given-digest")


def test_another_image_of_that_name_stays(here: Cache, there: Cache, registry: str) -> None:
    place = f"oci://{registry}/images/name:v1"
    here.image("push", "local:tools", place).ok()
    other = there.directory.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", other, "8M"], check=True)
    there.image("import", other, "--as", "name").ok()
    before = there.listed()
    assert "already exists" in there.image("pull", place).failed(5).err
    assert there.listed() == before
    there.image("pull", place, "--force").ok()
    assert there.listed()["local:name"] == here.listed()["local:tools"]


def test_a_cut_download_goes_on_and_a_spoiled_one_is_refused(
    here: Cache, there: Cache, registry: str
) -> None:
    here.image("push", "local:tools", f"oci://{registry}/images/cut:v1").ok()
    with Front(behind=registry, cut=600_000, cuts=1).running() as front:
        there.image("pull", f"oci://{front}/images/cut:v1", "--as", "cut").ok()
    assert there.listed()["local:cut"] == here.listed()["local:tools"]
    with Front(behind=registry, spoil=True).running() as front:
        failed = there.image("pull", f"oci://{front}/images/cut:v1", "--as", "bad").failed(8)
    assert "does not match its digest" in failed.err
    assert "local:bad" not in there.listed()


def test_what_cannot_be_pushed_or_pulled(here: Cache, there: Cache, registry: str) -> None:
    place = f"oci://{registry}/images/none:v1"
    assert "not found" in here.image("push", "local:none", place).failed(4).err
    assert "invalid reference" in here.image("push", "local:tools", "ghcr.io/me").failed(2).err
    assert "404" in there.image("pull", place).failed(8).err
    refused = there.image("pull", f"oci://{registry}/images/debian-12:v1").failed(5)
    assert "name of another recipe" in refused.err
    assert "exactly one image" in there.image("pull", "ubuntu:24.04", "--as", "x").failed(2).err
    told = armvm("create", "--image", place, "--dry-run").failed(3)
    assert f"armvm image pull {place} --as NAME" in told.err
