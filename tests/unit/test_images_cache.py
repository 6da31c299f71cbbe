"""The cache, files on this host, and images built here."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base import process
from armvm.base.errors import (
    BuildFailed,
    ConfigError,
    DigestMismatch,
    HostileImage,
    ImageError,
    NotFound,
    PermissionDenied,
    StorageError,
)
from armvm.base.progress import Quiet
from armvm.images.cache import entry as entries
from armvm.images.cache.store import Cache
from armvm.images.check.formats import guess_system, refuse_foreign
from armvm.images.model import FromImage, Verified
from armvm.images.resolve import Settings, obtain, resolve
from armvm.settings.system import OperatingSystem
from tests.images_tools import Heard, leftovers, qcow2_image, raw_image

pytestmark = pytest.mark.unit

RECIPE = "0123456789abcdef" * 4
DEBIAN = OperatingSystem(distro="debian", version="12")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def find(text: str | Path) -> FromImage:
    return resolve(str(text), Settings())


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


# --- files on this host ---------------------------------------------------------------------


def test_a_qcow2_file_is_used_where_it_is(tmp_path: Path, cache: Cache) -> None:
    file = qcow2_image(tmp_path / "debian-12-genericcloud-arm64.qcow2")
    for text in (str(file), f"file://{file}"):
        source = find(text)
        assert source.system == DEBIAN
        assert source.size == file.stat().st_size
        assert source.verified is Verified.NOTHING
        image = obtain(source, cache=cache, progress=Quiet())
        assert image.path == file
        assert image.digest == sha256(file)
        assert image.virtual_size == 64 << 20
    assert cache.entries() == []


def test_a_digest_given_with_a_file_is_checked(tmp_path: Path, cache: Cache) -> None:
    file = qcow2_image(tmp_path / "a.qcow2")
    good = find(f"file://{file}#sha256={sha256(file)[7:]}")
    assert good.verified is Verified.GIVEN
    obtain(good, cache=cache, progress=Quiet())
    with pytest.raises(DigestMismatch):
        obtain(find(f"file://{file}#sha256={'0' * 64}"), cache=cache, progress=Quiet())


def test_a_file_is_hashed_once(tmp_path: Path, cache: Cache) -> None:
    file = qcow2_image(tmp_path / "a.qcow2")
    os.utime(file, (1_700_000_000, 1_700_000_000))
    progress = Heard()
    first = obtain(find(file), cache=cache, progress=progress)
    assert obtain(find(file), cache=cache, progress=progress).digest == first.digest
    assert len(progress.tasks) == 1
    with file.open("r+b") as open_file:
        open_file.seek(0, os.SEEK_END)
        open_file.write(bytes(512))
    assert obtain(find(file), cache=cache, progress=progress).digest == sha256(file)
    (cache.root / "digests.json").write_text("{nonsense")
    assert obtain(find(file), cache=cache, progress=progress).digest == sha256(file)


def test_a_raw_file_is_converted_once(tmp_path: Path, cache: Cache) -> None:
    raw = raw_image(tmp_path / "disk.img")
    progress = Heard()
    image = obtain(find(raw), cache=cache, progress=progress)
    assert image.path.parent == cache.root
    assert image.digest == sha256(raw)
    assert image.virtual_size == raw.stat().st_size
    process.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image.path])
    assert obtain(find(raw), cache=cache, progress=progress).path == image.path
    assert [label for label, _ in progress.tasks].count("converting disk.img to qcow2") == 1


def test_a_gpt_of_4096_byte_sectors_is_a_disk(tmp_path: Path, cache: Cache) -> None:
    file = tmp_path / "disk.img"
    file.write_bytes(bytes(4096) + b"EFI PART" + bytes(1 << 20))
    assert obtain(find(file), cache=cache, progress=Quiet()).virtual_size >= 1 << 20


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"just a note\n", "text"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (b"\xfd7zXZ\x00" + bytes(100), "xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
        (b"BZh9" + bytes(100), "bzip2"),
        (bytes(257) + b"ustar" + bytes(300), "tar"),
        (b"\x7fELF" + bytes(100), "a program"),
        (b"KDMV" + bytes(100), "vmdk"),
        (b"hsqs" + bytes(100), "squashfs"),
        (bytes(510) + b"\x55\xaa" + bytes(32257) + b"CD001" + bytes(99), "an ISO image"),
        (bytes(510) + b"\x55\xaa" + bytes(4096), "unknown format"),
        (random.Random(0).randbytes(4096)[:-2] + bytes(40000), "not a disk image"),
        (b"QFI\xfb" + bytes(10), "cannot be used"),
    ],
)
def test_files_that_are_no_disk_say_what_they_are(
    tmp_path: Path, cache: Cache, data: bytes, what: str
) -> None:
    file = tmp_path / "a.img"
    file.write_bytes(data)
    with pytest.raises(HostileImage, match=what):
        obtain(find(file), cache=cache, progress=Quiet())


def test_a_zip_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.img", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(HostileImage, match="zip") as caught:
        find(tmp_path / "a.img")
    assert "unzip" in (caught.value.hint or "")


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        find(tmp_path / "missing.qcow2")
    (tmp_path / "file").touch()
    with pytest.raises(NotFound):
        find(tmp_path / "file" / "x.qcow2")
    with pytest.raises(ConfigError, match="directory"):
        find(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="not a regular file"):
        find(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ImageError):
        find(tmp_path / "loop")
    with pytest.raises(ImageError):
        find("/" + "a" * 300)


def test_an_unreadable_file(tmp_path: Path) -> None:
    file = qcow2_image(tmp_path / "a.qcow2")
    file.chmod(0)
    before = os.geteuid()
    if before == 0:  # root reads everything: look as nobody
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionDenied):
            find(file)
    finally:
        os.seteuid(before)


def test_what_file_names_tell() -> None:
    for name, system in {
        "debian-12-genericcloud-arm64.qcow2": DEBIAN,
        "debian-12": DEBIAN,
        "noble-server-cloudimg-arm64.img": OperatingSystem(distro="ubuntu", version="24.04"),
        "ubuntu-22.04-server-cloudimg-arm64.img": OperatingSystem(distro="ubuntu", version="22.04"),
        "disk.img": None,
        "debian-sid.qcow2": OperatingSystem(distro="debian", version="sid"),
        "debian-none.qcow2": None,
    }.items():
        assert guess_system(name) == system
    for name in ("x-amd64.img", "x_x86_64.qcow2", "Fedora.x86-64.raw", "a-i686.img", "a.riscv64"):
        with pytest.raises(ImageError, match="arm64"):
            refuse_foreign(name)
    for name in ("x-arm64.img", "built-on-amd64-for-aarch64.img", "amd64ish.img"):
        refuse_foreign(name)


# --- images built here ----------------------------------------------------------------------


def test_a_local_image_that_was_never_built(cache: Cache) -> None:
    source = find("local:debian-12")
    assert source.system == DEBIAN
    assert source.verified is Verified.BUILT
    with pytest.raises(NotFound) as caught:
        obtain(source, cache=cache, progress=Quiet())
    assert caught.value.hint == "build it with: armvm image build debian-12"


def test_a_local_image_is_built_once(tmp_path: Path, cache: Cache) -> None:
    built: list[str] = []

    def build(name: str) -> Path:
        built.append(name)
        with cache.partial(f"local:{name}") as partial:
            qcow2_image(tmp_path / "x.img").replace(partial)
            stored = cache.store_local(partial, name=name, recipe=RECIPE, system=DEBIAN)
        return stored.path

    source = find("local:debian-12")
    image = obtain(source, cache=cache, progress=Quiet(), build=build)
    assert image.path == cache.local_path("debian-12", RECIPE)
    assert image.path.name == "debian-12-0123456789ab.qcow2"
    assert image.digest == sha256(image.path)
    assert obtain(source, cache=cache, progress=Quiet(), build=build) == image
    assert obtain(source, cache=cache, progress=Quiet(), recipe=RECIPE) == image
    assert built == ["debian-12"]
    with pytest.raises(NotFound):
        obtain(source, cache=cache, progress=Quiet(), recipe="f" * 64)
    entry = cache.find_local("debian-12", RECIPE)
    assert entry is not None
    assert (entry.name, entry.recipe, entry.system) == ("debian-12", RECIPE, DEBIAN)
    assert cache.find_local("debian-1") is None


def test_the_newest_build_is_found(tmp_path: Path) -> None:
    ticks = iter(range(1000, 2000))
    cache = Cache(tmp_path / "cache", clock=lambda: float(next(ticks)))
    for recipe in ("f" * 64, "0" * 64, "a" * 64):
        file = qcow2_image(tmp_path / "x.img", payload=1000)
        cache.store_local(file, name="debian-12", recipe=recipe)
        assert not file.exists()
    newest = cache.find_local("debian-12")
    assert newest is not None
    assert newest.recipe == "a" * 64


def test_a_build_that_fails_or_is_no_image(tmp_path: Path, cache: Cache) -> None:
    def fail(name: str) -> Path:
        with cache.partial(f"local:{name}"):
            raise BuildFailed("no")

    def nothing(name: str) -> Path:
        return tmp_path

    def text(name: str) -> Path:
        (tmp_path / "x").write_text("text")
        return cache.store_local(tmp_path / "x", name=name, recipe=RECIPE).path

    source = find("local:debian-12")
    for build, error in ((fail, BuildFailed), (nothing, BuildFailed), (text, HostileImage)):
        with pytest.raises(error):
            obtain(source, cache=cache, progress=Quiet(), build=build)
        assert leftovers(cache.root) == []


@pytest.mark.parametrize(
    ("name", "recipe"), [("../x", RECIPE), ("x", "../../../abcdef"), ("x", "")]
)
def test_names_of_builds_cannot_lead_elsewhere(cache: Cache, name: str, recipe: str) -> None:
    with pytest.raises(ValueError, match="local image"):
        cache.local_path(name, recipe)


# --- the cache itself -----------------------------------------------------------------------


def stored(cache: Cache, tmp_path: Path) -> entries.Entry:
    obtain(find(raw_image(tmp_path / "disk.img")), cache=cache, progress=Quiet())
    return cache.entries()[0]


def test_entries_and_their_removal(tmp_path: Path, cache: Cache) -> None:
    entry = stored(cache, tmp_path)
    assert entry.problem is None
    assert entry.reference == str(tmp_path / "disk.img")
    assert entry.digest == sha256(tmp_path / "disk.img")
    assert entry.content == sha256(entry.path)
    assert entry.size == entry.path.stat().st_size
    assert abs(entry.used - entry.stored) < 60
    os.utime(entry.sidecar, (1, 1))
    obtain(find(tmp_path / "disk.img"), cache=cache, progress=Quiet())
    assert cache.entries()[0].used > 1000
    cache.remove(entry)
    cache.remove(entry)
    assert cache.entries() == []


def test_what_names_an_entry() -> None:
    digest = f"sha256:{RECIPE}"
    entry = entries.Entry(
        path=Path(f"/c/sha256-{RECIPE}.qcow2"),
        reference="ubuntu:24.04",
        serial="20260911",
        digest=digest,
    )
    for text in (
        *("ubuntu:24.04", "ubuntu:24.04/20260911", digest, RECIPE[:8].upper(), digest[:20]),
        *(f"sha256-{RECIPE}", f"/c/sha256-{RECIPE}.qcow2"),
    ):
        assert entries.matches(entry, text)
    for text in ("", "ubuntu", "ubuntu:22.04", "0123", "sha256:", "ubuntu:24.04/20260910"):
        assert not entries.matches(entry, text)
    assert not entries.matches(entries.Entry(path=Path("/c/x.qcow2"), problem="x"), "")


def test_the_directory_is_private(cache: Cache) -> None:
    cache.root.mkdir(mode=0o755, parents=True)
    cache.prepare()
    assert cache.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 2}', '{"format": 1}', "[" * 100_000]
)
def test_broken_sidecars(tmp_path: Path, cache: Cache, text: str) -> None:
    entry = stored(cache, tmp_path)
    entry.sidecar.write_text(text)
    (broken,) = cache.entries()
    assert broken.problem
    assert cache.find(entry.digest) is None
    obtain(find(tmp_path / "disk.img"), cache=cache, progress=Quiet())
    assert [e.problem for e in cache.entries()] == [None]


def test_half_an_entry(tmp_path: Path, cache: Cache) -> None:
    entry = stored(cache, tmp_path)
    data = entry.sidecar.read_bytes()
    entry.sidecar.unlink()
    assert [e.problem is None for e in cache.entries()] == [False]
    entry.sidecar.write_bytes(data)
    entry.path.unlink()
    (half,) = cache.entries()
    assert "missing" in (half.problem or "")
    cache.remove(half)
    assert leftovers(cache.root) == [] or leftovers(cache.root) == ["digests.json"]


@given(
    st.fixed_dictionaries(
        {
            key: st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just("ab" * 32)
            for key in ("reference", "location", "digest", "content", "size", "mtime_ns", "stored")
        }
        | {key: st.none() | st.just({}) | st.just({"distro": 1}) for key in ("system", "serial")}
        | {"verified": st.sampled_from(["none", "built-here", "x", 1]), "format": st.just(1)}
        | {key: st.none() | st.integers() | st.text(max_size=5) for key in ("name", "recipe")}
    )
)
def test_any_sidecar_gives_an_entry(
    tmp_path_factory: pytest.TempPathFactory, facts: dict[str, object]
) -> None:
    image = tmp_path_factory.mktemp("entry") / "sha256-x.qcow2"
    image.touch()
    entries.sidecar_of(image).write_text(json.dumps(facts))
    entries.load(image)


def test_what_a_killed_process_left_is_removed(cache: Cache) -> None:
    def never() -> None:
        raise AssertionError

    with (
        cache.partial("a") as first,
        cache.partial("b") as second,
        cache.lock("a", on_wait=never),
    ):
        assert not first.exists()
        assert second.exists()
    assert leftovers(cache.root) == []


def test_the_lock_is_held_by_one(cache: Cache) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            with cache.lock("key", on_wait=lambda: None):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1
    assert leftovers(cache.root) == []


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used"):
        Cache(tmp_path / "file" / "cache").entries()


def test_no_room_to_convert(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", free=lambda _: 0)
    with pytest.raises(StorageError):
        obtain(find(raw_image(tmp_path / "disk.img")), cache=cache, progress=Quiet())
    assert not list(cache.root.glob("*.qcow2"))
