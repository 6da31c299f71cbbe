"""Mutated documents of every kind: an image within the catalog, or our error; nothing else.

A real server hands out each document changed at random (by a fixed seed), and the catalogs are
asked as always. Whatever a document says, no request goes to another server, and no location
leads out of the catalog's own tree.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests

from armvm.base.errors import ArmvmError
from armvm.base.progress import Quiet
from armvm.images.fetch.http import Web
from armvm.images.resolve import Settings, resolve
from armvm.settings.verify import Verify
from tests.catalog_trees import every_tree, list_directories
from tests.image_server import PRODUCTS, Fault, ImageServer, ubuntu_tree

pytestmark = pytest.mark.unit

#: How many mutations of each document, and how long one may take, in seconds.
COUNT = 300
LIMIT = 5.0

NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 1e308, "", " ", "..", "../", "../../../etc/passwd", "/etc/passwd",
    "//evil.example/x", "http://evil.example/x.img", "file:///etc/passwd", "javascript:x",
    "%2e%2e/", "a\x00b", "a\nb", "\ud800", "é", "x" * 5000, "?q", "#f", "a\\b", "user:pw@host",
    "{version}", "24.04", "arm64", "20991231", "9" * 400, [], {}, [[]], {"path": ".."}, ["x"],
)  # fmt: skip


class Fenced(requests.Session):
    """A session that fails the test when another server than the test's is asked."""

    base = ""

    def get(self, url: Any, **options: Any) -> requests.Response:
        assert str(url).startswith(self.base), f"another server was asked: {url!r}"
        assert ".." not in unquote(urlsplit(str(url)).path).split("/"), url
        return super().get(url, **options)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageServer]:
    root = tmp_path_factory.mktemp("tree")
    image = root / "image"
    image.write_bytes(b"an image")
    every_tree(root, image)
    ubuntu_tree(root / "ubuntu", image, "22.04", "20260828")
    list_directories(root)
    with ImageServer(root) as running:
        yield running


def settings(server: ImageServer) -> Settings:
    def session() -> requests.Session:
        fenced = Fenced()
        fenced.base = server.url
        fenced.trust_env = False
        return fenced

    distros = ("ubuntu", "debian", "fedora", "alpine", "opensuse")
    return Settings(
        verify=Verify.DIGEST,
        mirrors={distro: f"{server.url}{distro}/" for distro in distros},
        web=Web(session=session, sleep=lambda _: None, attempts=1, read_timeout=LIMIT),
    )


def changed_json(source: random.Random, data: bytes) -> bytes:
    """Replace, remove, add or double some values of a JSON document."""
    document = json.loads(data)
    for _ in range(source.randint(1, 4)):
        spot = document
        while isinstance(spot, dict | list) and spot:
            key: Any = (
                source.choice(list(spot)) if isinstance(spot, dict) else source.randrange(len(spot))
            )
            deeper = spot[key]
            if not isinstance(deeper, dict | list) or not deeper or source.random() < 0.15:
                what = source.randrange(4)
                if what == 0:
                    del spot[key]
                elif what == 1 and isinstance(spot, dict):
                    spot[str(source.choice(NASTY))] = deeper
                elif what == 2 and isinstance(deeper, str) and deeper:
                    at = source.randrange(len(deeper))
                    spot[key] = deeper[:at] + str(source.choice(NASTY)) + deeper[at:]
                else:
                    spot[key] = source.choice(NASTY)
                break
            spot = deeper
    return json.dumps(document).encode()


def changed_bytes(source: random.Random, data: bytes) -> bytes:
    """Change, cut, double and fill in some bytes."""
    body = bytearray(data)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(body) + 1)
        end = min(len(body), at + source.randint(0, 60))
        what = source.randrange(5)
        if what == 0:
            body[at:end] = source.randbytes(end - at)
        elif what == 1:
            del body[at:end]
        elif what == 2:
            body[at:at] = bytes(body[at:end]) * source.randint(1, 50)
        elif what == 3:
            del body[source.randrange(len(body) + 1) :]
        else:
            body[at:at] = str(source.choice(NASTY)).encode(errors="surrogatepass")
    return bytes(body)


TRIXIE = "debian/trixie/"
FEDORA = "fedora/releases/43/Cloud/aarch64/images/"
ALPINE = "alpine/v3.22/releases/cloud/"
LEAP = "opensuse/distribution/leap/16.0/appliances/"


@pytest.mark.parametrize(
    ("text", "path", "change"),
    [
        ("ubuntu:lts", "ubuntu/streams/v1/index.json", changed_json),
        ("ubuntu:lts", f"ubuntu/{PRODUCTS}", changed_json),
        ("ubuntu:lts", f"ubuntu/{PRODUCTS}", changed_bytes),
        (
            "debian:13",
            f"{TRIXIE}latest/debian-13-genericcloud-arm64.json",
            changed_json,
        ),
        ("debian:13", f"{TRIXIE}20250814-2204/SHA512SUMS", changed_bytes),
        ("debian:13/0", TRIXIE, changed_bytes),
        ("fedora:latest", "fedora/releases/", changed_bytes),
        ("fedora:43", FEDORA, changed_bytes),
        ("fedora:43", f"{FEDORA}Fedora-Cloud-43-1.6-aarch64-CHECKSUM", changed_bytes),
        ("alpine:latest", "alpine/", changed_bytes),
        ("alpine:3.22", ALPINE, changed_bytes),
        (
            "alpine:3.22",
            f"{ALPINE}nocloud_alpine-3.22.1-aarch64-uefi-cloudinit-r0.qcow2.sha512",
            changed_bytes,
        ),
        ("opensuse:leap", "opensuse/distribution/leap/", changed_bytes),
        ("opensuse:16.0", LEAP, changed_bytes),
        (
            "opensuse:16.0",
            f"{LEAP}Leap-16.0-Minimal-VM.aarch64-Cloud-Build18.7.qcow2.sha256",
            changed_bytes,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_mutated_documents(
    server: ImageServer,
    text: str,
    path: str,
    change: Callable[[random.Random, bytes], bytes],
) -> None:
    file = server.root / path / "index.html" if path.endswith("/") else server.root / path
    original, source = file.read_bytes(), random.Random(f"{text} {path} {change.__name__}")
    name = text.partition(":")[0]
    base = f"{server.url}{name}/"
    wanted = settings(server)
    found = refused = 0
    for _ in range(COUNT):
        body = change(source, original)
        server.mend()
        server.fault(path, Fault(body=body))
        begin = time.monotonic()
        try:
            image = resolve(text, wanted)
        except ArmvmError as error:
            refused += 1
            assert error.message
            assert error.exit_code in (3, 4, 8)
        else:
            found += 1
            assert image.location.startswith(base)
            assert ".." not in unquote(urlsplit(image.location).path).split("/")
            assert urlsplit(image.location).query == urlsplit(image.location).fragment == ""
            assert image.location.isascii() and image.location.isprintable()
            assert image.digest is not None and len(image.digest) in (71, 135)
            assert image.size is None or 0 < image.size <= 64 << 30
        assert time.monotonic() - begin < LIMIT
    server.mend()
    assert found + refused == COUNT
    # The mutations reach what is looked at: some are refused.
    assert refused > COUNT / 20


@pytest.mark.parametrize("name", ["ubuntu", "debian", "fedora", "alpine", "opensuse"])
def test_mutated_documents_when_listing(server: ImageServer, name: str) -> None:
    source = random.Random(name)
    wanted = settings(server)
    pages = {
        "ubuntu": f"ubuntu/{PRODUCTS}",
        "debian": TRIXIE,
        "fedora": FEDORA,
        "alpine": ALPINE,
        "opensuse": LEAP,
    }
    path = pages[name]
    file = server.root / path / "index.html" if path.endswith("/") else server.root / path
    original = file.read_bytes()
    for _ in range(100):
        change = changed_json if path.endswith(".json") else changed_bytes
        server.mend()
        server.fault(path, Fault(body=change(source, original)))
        try:
            offers = wanted.catalogs()[name].releases(wanted.asking(Quiet()), every=True)
        except ArmvmError:
            continue
        for offer in offers:
            assert offer.reference.startswith(f"{name}:")
            assert offer.reference.isascii() and offer.reference.isprintable()
    server.mend()


@pytest.mark.parametrize("text", ["alpine:latest", "fedora:latest", "opensuse:leap", "debian:13/0"])
def test_pages_made_to_be_slow(server: ImageServer, text: str) -> None:
    """Reading a page takes time in proportion to its size, whatever is in it."""
    places = {"alpine": "alpine/", "fedora": "fedora/releases/", "debian": TRIXIE}
    path = places.get(text.partition(":")[0], "opensuse/distribution/leap/")
    for body in (
        b'href="' * 500_000,
        b"href" + b" " * 3_000_000 + b"=",
        b'<a href="' + b"v3." * 1_000_000 + b'">',
        b'<a href="v3.22/">' * 200_000,
        b'<a href="' + b"9" * 500 + b'.1/">' * 5000,
    ):
        server.fault(path, Fault(body=body))
        begin = time.monotonic()
        try:
            resolve(text, settings(server))
        except ArmvmError as error:
            assert error.exit_code in (4, 8)
        assert time.monotonic() - begin < LIMIT
    server.mend()


def test_the_fence_holds(server: ImageServer, tmp_path: Path) -> None:
    """The tests above are worth what Fenced sees."""
    with settings(server).web.session() as session, pytest.raises(AssertionError, match="another"):
        session.get("http://evil.example/")
