"""Downloads over real HTTP: verification, errors, and that nothing is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base import process
from armvm.base.errors import (
    ArmvmError,
    ConfigError,
    DigestMismatch,
    FetchFailed,
    HostileImage,
    ImageError,
    NotFound,
    StorageError,
    Unreachable,
)
from armvm.base.progress import Quiet
from armvm.images.cache.store import Cache
from armvm.images.fetch.http import Web
from armvm.images.model import FromImage, Image, Verified
from armvm.images.resolve import Settings, obtain, resolve
from armvm.settings.system import OperatingSystem
from armvm.settings.verify import Verify
from tests.image_server import PRODUCTS, Fault, ImageServer, Published, ubuntu_tree
from tests.images_tools import Heard, Sleeps, leftovers, qcow2_image, quick, raw_image

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qcow2_image(tmp_path_factory.mktemp("image") / "disk.img")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "www"
    path.mkdir()
    return path


@pytest.fixture
def published(root: Path, picture: Path) -> Published:
    return ubuntu_tree(root, picture)


@pytest.fixture
def server(root: Path, published: Published) -> Iterator[ImageServer]:
    with ImageServer(root) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def settings(
    server: ImageServer, web: Web | None = None, verify: Verify | None = Verify.DIGEST
) -> Settings:
    """The tree here is not signed: signatures have tests of their own (test_images_trust)."""
    return Settings(mirrors={"ubuntu": server.url}, web=web or quick(), verify=verify)


def pull(server: ImageServer, cache: Cache, text: str = "ubuntu:24.04", **how: Web) -> Image:
    web = how.get("web") or quick()
    # A URL without a digest would not be taken where a digest is asked for.
    verify = Verify.DIGEST if text.startswith("ubuntu:") else None
    source = resolve(text, settings(server, web, verify))
    return obtain(source, cache=cache, progress=Quiet(), web=web)


def fails(server: ImageServer, cache: Cache, text: str = "ubuntu:24.04") -> ArmvmError:
    """Pull, expect an error with exit code 8, and see that nothing is left."""
    with pytest.raises(ImageError) as caught:
        pull(server, cache, text)
    assert leftovers(cache.root) == []
    assert caught.value.exit_code == 8
    return caught.value


def test_ubuntu_from_the_catalog(server: ImageServer, published: Published, cache: Cache) -> None:
    progress = Heard()
    source = resolve("ubuntu:noble", settings(server))
    assert source == FromImage(
        reference="ubuntu:24.04",
        location=server.url + published.path,
        digest=f"sha256:{published.digest}",
        size=published.size,
        system=OperatingSystem(distro="ubuntu", version="24.04"),
        serial="20260911",
        verified=Verified.CATALOG,
    )
    image = obtain(source, cache=cache, progress=progress, web=quick())
    assert image.path.read_bytes() == (server.root / published.path).read_bytes()
    assert image.digest == source.digest
    assert image.size == published.size
    assert image.virtual_size == 64 << 20
    assert progress.tasks == [("fetching ubuntu:24.04 (20260911)", published.size)]
    assert progress.done == published.size
    assert leftovers(cache.root) == [image.path.with_suffix(".json").name, image.path.name]


def test_a_cached_image_needs_no_network(
    server: ImageServer, published: Published, cache: Cache
) -> None:
    source = resolve("ubuntu:24.04", settings(server))
    first = obtain(source, cache=cache, progress=Quiet(), web=quick())
    server.fault(published.path, Fault(status=500))
    assert obtain(source, cache=cache, progress=Quiet(), web=quick()) == first
    assert server.count(published.path) == 1


def test_a_damaged_cached_image_is_fetched_again(
    server: ImageServer, published: Published, cache: Cache
) -> None:
    image = pull(server, cache)
    with image.path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    assert pull(server, cache).path.read_bytes() == (server.root / published.path).read_bytes()
    assert server.count(published.path) == 2
    os.utime(image.path)  # a new date alone is not damage
    pull(server, cache)
    assert server.count(published.path) == 2


def test_a_serial_asked_for(server: ImageServer, tmp_path: Path, cache: Cache) -> None:
    older = qcow2_image(tmp_path / "older.img", payload=1000)
    published = ubuntu_tree(server.root, older, serial="20240423")
    image = pull(server, cache, "ubuntu:24.04/20240423")
    assert image.digest == f"sha256:{published.digest}"
    assert image.source.reference == "ubuntu:24.04/20240423"
    with pytest.raises(NotFound, match="serial") as caught:
        pull(server, cache, "ubuntu:24.04/20200101")
    assert "20260911, 20240423" in (caught.value.hint or "")
    with pytest.raises(NotFound):
        pull(server, cache, "ubuntu:22.04")


def test_a_wrong_digest(root: Path, picture: Path, server: ImageServer, cache: Cache) -> None:
    ubuntu_tree(root, picture, digest="0" * 64)
    error = fails(server, cache)
    assert isinstance(error, DigestMismatch)
    assert "0000" in (error.detail or "")


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        (Fault(cut=0), 4),
        (Fault(cut=0, no_length=True), 4),
        (Fault(body=b"short"), 1),  # it says itself that it has too little
    ],
)
def test_a_truncated_body(
    server: ImageServer, published: Published, cache: Cache, fault: Fault, tries: int
) -> None:
    server.fault(published.path, fault)
    error = fails(server, cache)
    assert isinstance(error, FetchFailed)
    assert "is truncated" in error.message
    assert server.count(published.path) == tries


def test_a_body_longer_than_promised(
    root: Path, picture: Path, server: ImageServer, published: Published, cache: Cache
) -> None:
    ubuntu_tree(root, picture, size=1000)
    assert "longer" in fails(server, cache).message
    server.fault(published.path, Fault(no_length=True))
    assert "longer" in fails(server, cache).message


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusals_are_not_tried_again(
    server: ImageServer, published: Published, cache: Cache, status: int
) -> None:
    for path in (published.path, PRODUCTS, "streams/v1/index.json"):
        server.mend()
        server.requests.clear()
        server.fault(path, Fault(status=status))
        error = fails(server, cache)
        assert isinstance(error, FetchFailed)
        assert str(status) in error.message
        assert error.hint
        assert server.count(path) == 1


def test_a_server_in_trouble_is_asked_again(
    server: ImageServer, published: Published, cache: Cache
) -> None:
    sleeps = Sleeps()
    server.fault(published.path, Fault(status=500), times=2)
    server.fault(PRODUCTS, Fault(status=503), times=1)
    pull(server, cache, web=quick(sleeps))
    assert sleeps == [1.0, 1.0, 2.0]


def test_a_server_that_stays_in_trouble(
    server: ImageServer, published: Published, cache: Cache
) -> None:
    server.fault(published.path, Fault(status=502))
    assert isinstance(fails(server, cache), FetchFailed)
    assert server.count(published.path) == 4


def test_a_reset_connection_is_tried_again(
    server: ImageServer, published: Published, cache: Cache
) -> None:
    server.fault(published.path, Fault(reset=True), times=1)
    server.fault(published.path, Fault(reset=True, cut=1 << 20), times=1)
    pull(server, cache)
    assert server.count(published.path) == 3


def test_connections_that_are_always_reset(
    server: ImageServer, published: Published, cache: Cache
) -> None:
    server.fault(published.path, Fault(reset=True))
    assert isinstance(fails(server, cache), Unreachable)
    assert server.count(published.path) == 4


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "no-such-host.invalid"])
def test_an_unreachable_server_gives_up_at_once(cache: Cache, host: str) -> None:
    sleeps = Sleeps()
    url = f"http://{host.format(port=closed_port())}/"
    for text in ("ubuntu:24.04", f"{url}a.qcow2"):
        with pytest.raises(Unreachable) as caught:
            source = resolve(text, Settings(mirrors={"ubuntu": url}, web=quick(sleeps)))
            obtain(source, cache=cache, progress=Quiet(), web=quick(sleeps))
        assert "HTTPS_PROXY" in (caught.value.hint or "")
        for help in ("ARMVM_MIRROR_UBUNTU", "local:debian-12", "--image PATH"):
            assert (help in (caught.value.hint or "")) == (text == "ubuntu:24.04")
    image = FromImage(reference="ubuntu:24.04", location=f"{url}a.img", verified=Verified.NOTHING)
    with pytest.raises(Unreachable, match="cannot connect") as caught:
        obtain(image, cache=cache, progress=Quiet(), web=quick(sleeps))
    assert "ARMVM_MIRROR_UBUNTU" in (caught.value.hint or "")
    assert sleeps == []
    assert not cache.root.exists() or leftovers(cache.root) == []


def test_passwords_and_tokens_are_not_told(server: ImageServer, cache: Cache) -> None:
    server.fault("a.img", Fault(status=500))
    server.fault("cut.img", Fault(cut=5, body=bytes(100)))
    for base in (server.url, f"http://127.0.0.1:{closed_port()}/", "http://no-such-host.invalid/"):
        for name in ("a.img", "missing.img", "cut.img"):
            url = f"{base.replace('//', '//me:s3cret@')}{name}?sig=s3cret"
            progress = Heard()
            source = resolve(url, Settings(web=quick()))
            with pytest.raises(ImageError) as caught:
                obtain(source, cache=cache, progress=progress, web=quick())
            error = caught.value
            told = f"{error.message} {error.detail} {error.hint} {progress.warned} {progress.tasks}"
            assert "s3cret" not in told + source.reference


def test_a_server_that_falls_silent(
    server: ImageServer, published: Published, cache: Cache
) -> None:
    server.fault(published.path, Fault(delay=30))
    source = resolve("ubuntu:24.04", settings(server))
    with pytest.raises(Unreachable, match="timed out"):
        obtain(source, cache=cache, progress=Quiet(), web=quick(read_timeout=1.0))
    assert leftovers(cache.root) == []


def test_the_cache_stands_in_for_a_catalog_that_does_not_answer(
    server: ImageServer, cache: Cache
) -> None:
    image = pull(server, cache)
    away = replace(settings(server), mirrors={"ubuntu": f"http://127.0.0.1:{closed_port()}/"})
    progress = Heard()
    for text in ("ubuntu:24.04", "ubuntu:noble", "ubuntu:24.04/20260911"):
        source = resolve(text, away, cache=cache, progress=progress)
        assert obtain(source, cache=cache, progress=progress, web=quick()).path == image.path
    assert "20260911 from the cache" in progress.warned[0]
    for text in ("ubuntu:22.04", "ubuntu:24.04/20240423"):
        with pytest.raises(Unreachable):
            resolve(text, away, cache=cache)


def test_redirects(server: ImageServer, published: Published, cache: Cache) -> None:
    server.fault("moved.img", Fault(status=302, location=f"/{published.path}"))
    image = pull(server, cache, f"{server.url}moved.img")
    assert image.digest == f"sha256:{published.digest}"
    assert image.source.verified is Verified.NOTHING


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.org/x", "/loop.img"])
def test_redirects_that_are_not_followed(server: ImageServer, cache: Cache, location: str) -> None:
    server.fault("loop.img", Fault(status=301, location=location))
    error = fails(server, cache, f"{server.url}loop.img")
    assert isinstance(error, FetchFailed)
    assert "redirects" in error.message


def test_a_url_with_a_digest(server: ImageServer, published: Published, cache: Cache) -> None:
    text = f"{server.url}{published.path}#sha256={published.digest}"
    image = pull(server, cache, text)
    assert image.source.verified is Verified.GIVEN
    assert image.source.system == OperatingSystem(distro="ubuntu", version="24.04")
    server.fault(published.path, Fault(status=404))
    assert pull(server, cache, text).path == image.path
    other = Cache(cache.root.parent / "other")
    server.mend()
    wrong = fails(server, other, f"{server.url}{published.path}#sha256={'1' * 64}")
    assert isinstance(wrong, DigestMismatch)


def test_a_url_of_a_raw_image_is_converted(
    server: ImageServer, root: Path, tmp_path: Path, cache: Cache
) -> None:
    raw = raw_image(root / "disk.raw")
    digest = hashlib.sha256(raw.read_bytes()).hexdigest()
    image = pull(server, cache, f"{server.url}disk.raw")
    assert image.digest == f"sha256:{digest}"
    assert image.virtual_size == raw.stat().st_size
    process.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image.path])
    assert len(leftovers(cache.root)) == 2
    pull(server, cache, f"{server.url}disk.raw#sha256={digest}")
    assert server.count("disk.raw") == 1


@pytest.mark.parametrize("body", [b"", b"<html>login</html>", b"\x1f\x8b" + bytes(600)])
def test_what_is_no_disk_image(server: ImageServer, cache: Cache, body: bytes) -> None:
    server.fault("a.img", Fault(body=body))
    assert isinstance(fails(server, cache, f"{server.url}a.img"), HostileImage)


def test_an_image_with_a_backing_file_is_not_kept(
    server: ImageServer, root: Path, picture: Path, cache: Cache
) -> None:
    options = ["-q", "-f", "qcow2", "-F", "qcow2", "-b", str(picture)]
    process.run(["qemu-img", "create", *options, root / "a.img"])
    assert "backing file" in fails(server, cache, f"{server.url}a.img").message


def test_the_wrong_architecture_is_refused_before_fetching(
    server: ImageServer, cache: Cache
) -> None:
    for name in ("noble-server-cloudimg-amd64.img", "debian-12-genericcloud-x86_64.qcow2"):
        with pytest.raises(ImageError, match="arm64"):
            resolve(f"{server.url}{name}", settings(server))
    assert server.requests == []


@pytest.mark.parametrize(
    "document",
    [b"<html>a proxy's login page</html>", b"[]", b'{"index": {}}', b'{"products": 3}'],
)
def test_catalogs_that_make_no_sense(server: ImageServer, cache: Cache, document: bytes) -> None:
    for path in ("streams/v1/index.json", PRODUCTS):
        server.mend()
        server.fault(path, Fault(body=document))
        assert isinstance(fails_to_resolve(server), FetchFailed)


def test_an_index_that_leads_elsewhere(server: ImageServer) -> None:
    entry = {"datatype": "image-downloads", "path": "http://evil.example/x.json"}
    body = json.dumps({"index": {"x": entry}}).encode()
    server.fault("streams/v1/index.json", Fault(body=body))
    assert "unsafe path" in fails_to_resolve(server).message


def test_a_catalog_without_end(server: ImageServer) -> None:
    server.fault("streams/v1/index.json", Fault(body=bytes(65 << 20)))
    assert "larger than" in fails_to_resolve(server).message


def fails_to_resolve(server: ImageServer) -> ArmvmError:
    with pytest.raises(ImageError) as caught:
        resolve("ubuntu:24.04", settings(server))
    return caught.value


@pytest.mark.parametrize(
    "mirror", ["ftp://x/", "/srv", "http://", "x", "http://a/?q", "http://[", "http://a\n/"]
)
def test_a_mirror_that_is_none(mirror: str) -> None:
    with pytest.raises(ConfigError, match="ARMVM_MIRROR_UBUNTU"):
        resolve("ubuntu:24.04", Settings.from_environ({"ARMVM_MIRROR_UBUNTU": mirror}))


def test_the_mirror_comes_from_the_environment() -> None:
    given = Settings.from_environ({"ARMVM_MIRROR_UBUNTU": "http://mirror.example/x"})
    assert given.mirrors == {"ubuntu": "http://mirror.example/x/"}
    assert Settings.from_environ({"ARMVM_MIRROR_UBUNTU": ""}).mirrors == {}


def test_no_room(server: ImageServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", free=lambda _: 65 << 20)
    source = resolve("ubuntu:24.04", settings(server))
    with pytest.raises(StorageError, match="free") as caught:
        obtain(source, cache=cache, progress=Quiet(), web=quick())
    assert caught.value.exit_code == 9
    assert leftovers(cache.root) == []


FETCH = """
import sys
from pathlib import Path
from armvm.images.cache.store import Cache
from armvm.images.resolve import Settings, obtain, resolve
from armvm.base.progress import Plain
from armvm.settings.verify import Verify
source = resolve("ubuntu:24.04", Settings.from_environ(verify=Verify.DIGEST))
with Path(sys.argv[2]).open("a") as log:
    print(obtain(source, cache=Cache(Path(sys.argv[1])), progress=Plain(log)).path)
"""


def fetch_elsewhere(cache: Cache, log: Path, **env: str) -> str:
    """Fetch in another process, as a user would, its progress in *log*; return the path."""
    argv: list[str | Path] = [sys.executable, "-W", "error", "-c", FETCH, cache.root, log]
    return process.run(argv, env={"NO_PROXY": "127.0.0.1", **env}, timeout=90).text.strip()


def test_three_processes_fetch_once(
    server: ImageServer, published: Published, cache: Cache, tmp_path: Path
) -> None:
    both_wait = threading.Event()
    server.fault(published.path, Fault(hold=both_wait))
    paths: list[str] = []
    log = tmp_path / "log"
    log.touch()

    def fetch() -> None:
        paths.append(fetch_elsewhere(cache, log, ARMVM_MIRROR_UBUNTU=server.url))

    def waiting() -> int:
        lines = log.read_text().splitlines()
        return sum("another armvm process" in line and line.endswith(" …") for line in lines)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 30
    while waiting() < 2 and time.monotonic() < until:
        time.sleep(0.05)
    both_wait.set()
    for thread in threads:
        thread.join()
    assert paths == [str(cache.root / f"sha256-{published.digest}.qcow2")] * 3
    assert server.count(published.path) == 1
    assert waiting() == 2
    assert len(leftovers(cache.root)) == 2


def test_a_proxy_is_used(
    server: ImageServer, published: Published, cache: Cache, tmp_path: Path
) -> None:
    path = fetch_elsewhere(
        cache,
        tmp_path / "log",
        ARMVM_MIRROR_UBUNTU="http://mirror.invalid/",
        HTTP_PROXY=server.url,
        http_proxy=server.url,
        NO_PROXY="",
        no_proxy="",
    )
    assert path.endswith(f"sha256-{published.digest}.qcow2")
    assert server.count(published.path) == 1
