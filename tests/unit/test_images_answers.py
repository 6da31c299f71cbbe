"""Servers that do not answer with a catalog: each failure is reported, with exit code 8.

Absence (404) alone means that there is no such image; refusals, troubled servers, login pages and
proxies are failures with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from armvm.base.errors import ArmvmError, FetchFailed, ImageError, NotFound
from armvm.base.progress import Quiet
from armvm.images.cache.store import Cache
from armvm.images.distros.catalog import Asking
from armvm.images.fetch.http import Web
from armvm.images.resolve import Settings, resolve
from armvm.provision.image.list_ import on_offer
from armvm.settings.catalogs import DISTROS
from armvm.settings.verify import Verify
from tests.catalog_trees import debian_tree, every_tree, list_directories
from tests.image_server import Fault, ImageServer
from tests.images_tools import Heard, Sleeps, quick

pytestmark = pytest.mark.unit

REFERENCES = (
    "ubuntu:24.04",
    "ubuntu:24.04@daily",
    "debian:13",
    "debian:13/20250814-2204",
    "debian:13@daily",
    "fedora:43",
    "fedora:latest",
    "alpine:3.22",
    "alpine:latest",
    "opensuse:16.0",
    "opensuse:leap",
    "opensuse:tumbleweed",
    "almalinux:10",
    "rocky:10",
    "centos:latest",
    "oraclelinux:10",
    "amazonlinux:2023",
    "kali:latest",
)
LOGIN = b"""\r\n<!DOCTYPE html><html><head><link href="style.css"></head>
<body><a href="terms.html">Terms</a><form action="/login"></form></body></html>"""


class Captive(ImageServer):
    """Answers everything as *fault* says."""

    everything: Fault | None = None

    def take(self, path: str, headers: dict[str, str]) -> Fault:
        fault = super().take(path, headers)
        return fault if self.everything is None else self.everything


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captive]:
    root = tmp_path_factory.mktemp("tree")
    image = root / "image"
    image.write_bytes(b"an image")
    every_tree(root, image)
    debian_tree(root / "debian", image, "12", daily=True)
    list_directories(root)
    running = Captive(root)
    with running:
        yield running


@pytest.fixture
def server(serving: Captive) -> Iterator[Captive]:
    yield serving
    serving.everything = None
    serving.mend()


def settings(server: ImageServer, verify: Verify | None = None, web: Web | None = None) -> Settings:
    mirrors = {distro: f"{server.url}{distro}/" for distro in DISTROS}
    return Settings(mirrors=mirrors, web=web or quick(), verify=verify)


def failure(
    server: ImageServer, text: str, verify: Verify | None = None, web: Web | None = None
) -> ArmvmError:
    with pytest.raises(ImageError) as caught:
        resolve(text, settings(server, verify, web))
    assert caught.value.exit_code == 8
    assert caught.value.hint
    return caught.value


TROUBLE = {
    "403": (Fault(status=403), "answered 403"),
    "500": (Fault(status=500), "answered 500"),
    "425": (Fault(status=425), "answered 425"),
    "redirect": (Fault(status=302, location="http://[::1/x"), "invalid URL"),
    "scheme": (Fault(status=302, location="ftp://example.org/x"), "ftp: URL"),
    "oversize": (Fault(body=b"x" * (17 << 20)), "larger than"),
    "login": (Fault(body=LOGIN), "perhaps a login page"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("text", REFERENCES)
def test_trouble_is_not_absence(server: Captive, text: str, trouble: str) -> None:
    server.everything, message = TROUBLE[trouble]
    error = failure(server, text, Verify.DIGEST)
    assert message in f"{error.message}\n{error.detail}"


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_with_signatures(server: Captive, trouble: str) -> None:
    server.everything, message = TROUBLE[trouble]
    error = failure(server, "ubuntu:24.04")
    assert message in f"{error.message}\n{error.detail}"


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("every", [False, True])
def test_each_catalog_in_trouble_is_a_line(
    server: Captive, tmp_path: Path, trouble: str, every: bool
) -> None:
    server.everything, message = TROUBLE[trouble]
    progress = Heard()
    with pytest.raises(ImageError):  # all of them: the first is the error itself
        on_offer(
            [], progress, every=every, wanted=settings(server), cache=Cache(tmp_path / "cache")
        )
    assert [line.partition(":")[0] for line in progress.warned] == list(DISTROS[1:])
    assert all(message in line for line in progress.warned)


@pytest.mark.parametrize("distro", DISTROS)
def test_a_tree_behind_a_login_page(server: Captive, tmp_path: Path, distro: str) -> None:
    """Only the pages of one catalog; the others are listed."""
    for path in ("", "releases/", "distribution/leap/", "streams/v1/index.json"):
        server.fault(f"{distro}/{path}", Fault(body=LOGIN))
    for path in ("latest/kvm-arm64/SHA256SUMS", "ol10_aarch64-cloud-template.json"):
        server.fault(f"{distro}/{path}", Fault(body=LOGIN))
    progress = Heard()
    found = on_offer([], progress, wanted=settings(server), cache=Cache(tmp_path / "cache"))
    assert {one.catalog for one in found} == set(DISTROS) - {distro}
    assert [line.partition(":")[0] for line in progress.warned] == [distro]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("fedora:43", "fedora/releases/43/Cloud/aarch64/images/"),
        ("alpine:3.22", "alpine/v3.22/releases/cloud/"),
        ("opensuse:16.0", "opensuse/distribution/leap/16.0/appliances/"),
        ("debian:13@generic", "debian/trixie/latest/debian-13-generic-arm64.json"),
    ],
)
def test_what_is_refused_is_there_all_the_same(server: Captive, text: str, path: str) -> None:
    server.fault(path, Fault(status=403))
    assert "answered 403" in failure(server, text, Verify.DIGEST).message


def test_what_is_absent_is_not_found(server: Captive) -> None:
    for text in (
        "fedora:77",
        "alpine:3.99",
        "opensuse:17.0",
        "debian:12",
        "ubuntu:30.04",
        "rocky:7",
        "centos:8",
        "almalinux:10.9",
        "oraclelinux:9",
        "amazonlinux:2",
    ):
        with pytest.raises(NotFound):
            resolve(text, settings(server, Verify.DIGEST))


def test_a_mirror_without_a_tree_is_no_absence_of_an_image(tmp_path: Path) -> None:
    with ImageServer(tmp_path) as empty:
        for text in REFERENCES:
            assert isinstance(failure(empty, text, Verify.DIGEST), FetchFailed)


def test_425_is_tried_again(server: Captive) -> None:
    path = "opensuse/distribution/leap/16.0/appliances/"
    server.fault(path, Fault(status=425), times=1)
    pauses = Sleeps()
    found = resolve("opensuse:16.0", settings(server, Verify.DIGEST, quick(pauses)))
    assert found.serial == "18.7"
    assert len(pauses) == 1


@pytest.mark.parametrize(
    ("proxy", "message", "hint"),
    [
        ("socks5://127.0.0.1:1", "SOCKS", "requests[socks]"),
        ("gopher://127.0.0.1:1", "proxy", "ALL_PROXY"),
        ("http://127.0.0.1:1", "proxy", "HTTPS_PROXY"),
    ],
)
@pytest.mark.parametrize("text", ["debian:13", "fedora:43", "ubuntu:24.04"])
def test_a_proxy_that_does_not_work(
    server: Captive, text: str, proxy: str, message: str, hint: str
) -> None:
    def session() -> requests.Session:
        made = requests.Session()
        made.trust_env = False
        made.proxies = {"http": proxy, "https": proxy}
        return made

    web = Web(session=session, sleep=Sleeps())
    error = failure(server, text, Verify.DIGEST, web)
    assert message in error.message
    assert hint in (error.hint or "")


def test_debians_variants_are_listed_where_they_are(tmp_path: Path) -> None:
    root, image = tmp_path / "www", tmp_path / "image"
    image.write_bytes(b"an image")
    for serial, kinds in (("20250101-1", ("genericcloud",)), ("20250202-2", ("generic",))):
        for kind in kinds:
            debian_tree(root / "debian", image, "13", serial, kind=kind)
    debian_tree(root / "debian", image, "13", "20250303-3", kind="generic", daily=True)
    debian_tree(root / "debian", image, "13", "20250404-4", daily=True)
    list_directories(root)
    with ImageServer(root) as server:
        wanted = Settings(mirrors={"debian": f"{server.url}debian/"}, web=quick())
        offers = wanted.catalog("debian").releases(wanted.asking(Quiet()), every=True)
        server.fault("debian/trixie/20250101-1/", Fault(status=403))
        with pytest.raises(FetchFailed, match="403"):
            wanted.catalog("debian").releases(wanted.asking(Quiet()), every=True)
    assert [offer.reference for offer in offers] == [
        "debian:13/20250101-1",
        "debian:13/20250202-2@generic",
        "debian:13/20250404-4@daily",
        "debian:13/20250303-3@generic-daily",
    ]


def test_a_catalog_without_images_is_a_line(tmp_path: Path) -> None:
    root = tmp_path / "www"
    (root / "fedora/releases/43/Cloud").mkdir(parents=True)
    list_directories(root)
    progress = Heard()
    with ImageServer(root) as server:
        wanted = settings(server)
        catalog = wanted.catalog("fedora")
        assert catalog.releases(Asking(web=quick(), progress=Quiet())) == []
        on_offer(["fedora"], progress, wanted=wanted, cache=Cache(tmp_path / "cache"))
    assert progress.warned == ["fedora: the catalog lists no images"]
