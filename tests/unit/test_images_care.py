"""The verbs that look after the cache, run as programs: prune, verify, import, export, pull."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armvm.base.errors import ConfigError, FetchFailed
from armvm.images.cache.store import Cache
from armvm.images.distros.lts import supported_lts
from armvm.images.fetch.part import Origin
from armvm.settings.age import parse_age
from tests.image_server import PRODUCTS, ImageServer, ubuntu_tree
from tests.images_tools import leftovers, qcow2_image, raw_image
from tests.support import Result, armvm

pytestmark = pytest.mark.unit

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Run:
    def call(*words: str | Path, **env: str) -> Result:
        own = {"XDG_CACHE_HOME": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return armvm("image", *words, env={**own, **env})

    return call


@pytest.fixture
def cache(home: Path) -> Cache:
    return Cache(home / "armvm" / "images")


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


# --- import ---------------------------------------------------------------------------------


def test_an_imported_file_is_a_local_image(tmp_path: Path, run: Run, cache: Cache) -> None:
    file = qcow2_image(tmp_path / "debian-12-mine.qcow2")
    told = run("import", file, "--as", "mine", "--json").ok().json
    assert told["reference"] == "local:mine"
    assert told["verified"] == "none"
    assert told["digest"] == sha256(file)
    assert Path(told["path"]).read_bytes() == file.read_bytes()
    assert Path(told["path"]).stat().st_mode & 0o777 == 0o600
    file.unlink()
    pulled = run("pull", "local:mine", "--json").ok().json
    assert pulled["path"] == told["path"]
    assert (pulled["digest"], pulled["verified"]) == (told["digest"], "none")
    assert [one["reference"] for one in run("list", "--json").ok().json] == ["local:mine"]
    run("rm", "local:mine", "--connect", "test:///default").ok()
    assert "image import FILE --as mine" in run("pull", "local:mine").failed(4).err
    assert leftovers(cache.root) == []


def test_a_missing_directory_is_named_with_its_cure(tmp_path: Path, run: Run) -> None:
    run("import", raw_image(tmp_path / "disk.raw"), "--as", "raw").ok()
    target = tmp_path / "not here" / "x.qcow2"
    assert f"mkdir -p '{target.parent}'" in run("export", "local:raw", target).failed(4).err


def test_a_raw_file_and_a_digest(tmp_path: Path, run: Run, cache: Cache) -> None:
    raw = raw_image(tmp_path / "disk.raw")
    good = sha256(raw).removeprefix("sha256:")
    told = run("import", raw, "--as", "raw", "--sha256", good, "--json").ok().json
    assert (told["digest"], told["verified"]) == (sha256(raw), "given-digest")
    assert run("pull", "local:raw", "--json").ok().json["virtual_size"] == raw.stat().st_size
    for file in (raw, qcow2_image(tmp_path / "a.qcow2")):
        assert (
            "does not match the expected digest"
            in run("import", file, "--as", "x", "--sha256", "0" * 64).failed(8).err
        )
    assert "invalid sha256" in run("import", raw, "--as", "x", "--sha256", "abc").failed(3).err
    assert len(cache.entries()) == 1


def test_names_that_are_taken(tmp_path: Path, run: Run, cache: Cache) -> None:
    first, second = (qcow2_image(tmp_path / f"{n}.qcow2", payload=1000) for n in "ab")
    assert (
        "is reserved for armvm image build"
        in run("import", first, "--as", "debian-12").failed(5).err
    )
    assert run("import", first, "--as", "debian-12", "--force").failed(5)
    for name in ("../x", "", "A", "a/b", "a\nb"):
        run("import", first, "--as", name).failed(3)
    run("import", first, "--as", "mine", "--quiet").ok()
    assert "--force" in run("import", second, "--as", "mine").failed(5).err
    run("import", second, "--as", "mine", "--force").ok()
    assert [entry.digest for entry in cache.entries()] == [sha256(second)]


def test_hostile_files_are_not_imported(tmp_path: Path, run: Run, cache: Cache) -> None:
    (tmp_path / "note").write_text("text")
    (tmp_path / "x-amd64.qcow2").write_bytes(qcow2_image(tmp_path / "a.qcow2").read_bytes())
    backed = tmp_path / "backed.qcow2"
    data = bytearray((tmp_path / "a.qcow2").read_bytes())
    data[8:16], data[16:20] = (600).to_bytes(8, "big"), (11).to_bytes(4, "big")
    data[600:611] = b"/etc/passwd"
    backed.write_bytes(data)
    assert "backing file" in run("import", backed, "--as", "x").failed(8).err
    assert "text" in run("import", tmp_path / "note", "--as", "x").failed(8).err
    assert "x-arm64.qcow2" in run("import", tmp_path / "x-amd64.qcow2", "--as", "x").failed(8).err
    run("import", tmp_path, "--as", "x").failed(3)
    run("import", tmp_path / "missing", "--as", "x").failed(4)
    assert leftovers(cache.root) == []


# --- export ---------------------------------------------------------------------------------


def test_export(tmp_path: Path, run: Run, cache: Cache) -> None:
    file = qcow2_image(tmp_path / "a.qcow2")
    run("import", file, "--as", "mine").ok()
    out = tmp_path / "out.qcow2"
    told = run("export", "local:mine", out, "--json").ok().json
    assert out.read_bytes() == file.read_bytes()
    assert (told["path"], told["digest"]) == (str(out), sha256(file))
    out.write_text("precious")
    assert "--force" in run("export", "local:mine", out).failed(5).err
    assert out.read_text() == "precious"
    run("export", "local:mine", out, "--force").ok()
    assert out.read_bytes() == file.read_bytes()
    (tmp_path / "link").symlink_to("nowhere")
    run("export", "local:mine", tmp_path / "link").failed(5)
    run("export", "local:mine", tmp_path).failed(5)
    run("export", "local:mine", tmp_path / "no" / "x").failed(4)
    run("export", "local:other", tmp_path / "x").failed(4)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    entry = cache.entries()[0]
    with entry.path.open("r+b") as damaged:
        damaged.seek(90_000)
        damaged.write(b"damage")
    assert (
        "not found, or its file cannot be used"
        in run("export", "local:mine", tmp_path / "y").failed(4).err
    )


# --- verify ---------------------------------------------------------------------------------


def test_verify(tmp_path: Path, run: Run, cache: Cache) -> None:
    for name in ("one", "two"):
        run("import", qcow2_image(tmp_path / f"{name}.qcow2"), "--as", name).ok()
    assert [one["status"] for one in run("verify", "--json").ok().json] == ["ok", "ok"]
    bad = next(entry for entry in cache.entries() if entry.name == "one")
    when = bad.path.stat().st_mtime_ns
    with bad.path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"rot")
    os.utime(bad.path, ns=(when, when))  # as a failing disk does it: no date tells
    done = run("verify", "--json").failed(8)
    states = {one["reference"]: one["status"] for one in done.json}
    assert states == {"local:one": "changed", "local:two": "ok"}
    error = json.loads(done.err.splitlines()[-1])
    assert "image rm" in json.dumps(error)
    run("verify", "local:two").ok()
    assert "changed" in run("verify", "local:one").failed(8).out
    run("verify", "local:three").failed(4)
    bad.sidecar.write_text("{")
    states = {one["path"]: one["status"] for one in run("verify", "--json").failed(8).json}
    assert states[str(bad.path)] == "unusable"


# --- prune ----------------------------------------------------------------------------------


def test_prune(tmp_path: Path, run: Run, cache: Cache) -> None:
    for name in ("old", "new", "broken"):
        run("import", qcow2_image(tmp_path / f"{name}.qcow2", payload=1000), "--as", name).ok()
    entries = {entry.name: entry for entry in cache.entries()}
    past = time.time() - 40 * 86400
    os.utime(entries["old"].sidecar, (past, past))
    entries["broken"].sidecar.write_text("{")
    part = cache.part("something")
    with part.open() as file:
        file.write(bytes(5000))
    part.describe(Origin.of("http://x/", total=9, etag='"e"', modified=None))
    would = run("prune", "--dry-run", "--json").ok().json
    assert {one["path"] for one in would} == {str(part.path), str(entries["broken"].path)}
    assert part.size() == 5000
    assert run("prune", "--json").ok().json == would
    assert part.size() == 0
    assert [entry.name for entry in cache.entries()] == ["new", "old"]
    text = run("prune", "--older-than", "30d", "--dry-run").ok().out
    assert "would remove" in text
    assert "local:old" in text
    run("prune", "--older-than", "30d", "--unused", "--connect", "test:///default").ok()
    assert [entry.name for entry in cache.entries()] == ["new"]
    run("prune", "--older-than", "30d").ok()
    assert [entry.name for entry in cache.entries()] == ["new"]
    for wrong in ("30", "x", "-1d", "1y"):
        assert "invalid age" in run("prune", f"--older-than={wrong}").failed(3).err
    run("prune", "--unused", "--connect", "test:///default").ok()
    assert leftovers(cache.root) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("12h", 43200), ("30d", 2592000), ("2W", 1209600)],
)
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text, what="--x") == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "1.5d", "1y", "9" * 12 + "d", "-1d"])
def test_ages_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--x"):
        parse_age(text, what="--x")


# --- pull of several ------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImageServer]:
    root = tmp_path / "www"
    root.mkdir()
    for version in ("22.04", "24.04", "25.10"):
        image = qcow2_image(tmp_path / f"u{version}.img", payload=2000)
        ubuntu_tree(root, image, version=version)
    with ImageServer(root) as running:
        yield running


def test_all_lts(server: ImageServer, run: Run, cache: Cache) -> None:
    mirror = {"ARMVM_MIRROR_UBUNTU": server.url, "ARMVM_VERIFY": "digest"}
    told = run("pull", "--all-lts", "--json", **mirror).ok().json
    assert [one["reference"] for one in told] == ["ubuntu:24.04", "ubuntu:22.04"]
    told = run("pull", "ubuntu:25.10", "ubuntu:24.04", "--json", **mirror).ok().json
    assert [one["reference"] for one in told] == ["ubuntu:25.10", "ubuntu:24.04"]
    assert len(cache.entries()) == 3
    one = run("pull", "ubuntu:25.10", "--json", **mirror).ok().json
    assert one["reference"] == "ubuntu:25.10"
    assert "--all-lts" in run("pull", **mirror).failed(2).err


def test_what_is_supported(server: ImageServer) -> None:
    document = json.loads((server.root / PRODUCTS).read_text())
    assert supported_lts(json.dumps(document).encode()) == ["24.04", "22.04"]
    document["products"]["com.ubuntu.cloud:server:22.04:arm64"]["supported"] = False
    assert supported_lts(json.dumps(document).encode()) == ["24.04"]
    document["products"]["com.ubuntu.cloud:server:24.04:arm64"]["versions"] = {}
    with pytest.raises(FetchFailed, match="no supported LTS release for arm64"):
        supported_lts(json.dumps(document).encode())


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"products": 3}', b'{"products": {"a": 1}}', b"[" * 100_000, b"\xff"],
)
def test_lists_that_make_no_sense(document: bytes) -> None:
    with pytest.raises(FetchFailed):
        supported_lts(document)
