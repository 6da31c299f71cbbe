"""Each distribution's catalog against a real server with a tree like its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base.errors import (
    ConfigError,
    FetchFailed,
    NotFound,
    NotVerified,
    SignatureInvalid,
    Unreachable,
)
from armvm.base.progress import Quiet
from armvm.images.cache.entry import Entry
from armvm.images.cache.store import Cache
from armvm.images.distros.catalog import Asking, Catalog, Found, Offer
from armvm.images.distros.debian import serial_in
from armvm.images.distros.enterprise import LAYOUTS
from armvm.images.distros.fedora import Fedora
from armvm.images.distros.listing import names
from armvm.images.distros.opensuse import digest_in
from armvm.images.model import FromImage, Verified
from armvm.images.reference import CatalogReference, parse
from armvm.images.resolve import Settings, obtain, resolve
from armvm.images.trust.checksums import digests
from armvm.images.trust.pinned import OPENSUSE
from armvm.settings.catalogs import DISTROS
from armvm.settings.system import OperatingSystem
from armvm.settings.verify import Verify
from tests.catalog_trees import (
    almalinux_tree,
    alpine_tree,
    amazonlinux_tree,
    centos_tree,
    debian_tree,
    fedora_tree,
    kali_tree,
    list_directories,
    opensuse_tree,
    oraclelinux_tree,
    rawhide_tree,
    rocky_tree,
)
from tests.image_server import Fault, ImageServer, ubuntu_tree
from tests.images_tools import Heard, qcow2_image, quick

pytestmark = pytest.mark.unit

DATA = Path(__file__).parent.parent / "data" / "catalogs"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qcow2_image(tmp_path_factory.mktemp("image") / "image.qcow2", payload=1 << 20)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, picture: Path) -> Path:
    """All distributions' trees; nothing in it changes."""
    root = tmp_path_factory.mktemp("tree")
    for serial in ("20240423", "20260911"):
        ubuntu_tree(root / "ubuntu/releases", picture, serial=serial)
        ubuntu_tree(root / "ubuntu/daily", picture, serial=f"{serial}.1", aliases="24.04,devel")
    ubuntu_tree(root / "ubuntu/releases", picture, "22.04", "20260828")
    ubuntu_tree(root / "ubuntu/minimal/releases", picture, serial="20260910")
    for serial in ("20250806-2196", "20250814-2204"):
        debian_tree(root / "debian", picture, "13", serial)
        debian_tree(root / "debian", picture, "13", serial, kind="generic")
    debian_tree(root / "debian", picture, "12", "20250814-2205")
    debian_tree(root / "debian", picture, "12", "20250814-2205", kind="generic")
    debian_tree(root / "debian", picture, "12", "20250901-2222", daily=True)
    for version, compose, name in (
        ("9", "1.1", None),  # no release: one digit
        ("39", "1.5", "Fedora-Cloud-Base-39-1.5.aarch64.qcow2"),
        ("40", "1.14", "Fedora-Cloud-Base-Generic.aarch64-40-1.14.qcow2"),
        ("43", "1.6", None),
        ("43", "1.10", None),
    ):
        fedora_tree(root / "fedora", picture, version, compose, name=name)
    (root / "fedora/releases/44/Everything").mkdir(parents=True)
    for release in ("3.9.0", "3.21.4", "3.22.9", "3.22.10"):
        alpine_tree(root / "alpine", picture, release)
    opensuse_tree(root / "opensuse", picture, "15.6", None)
    for version, serial in (("16.0", "18.7"), ("16.0", "18.10"), ("tumbleweed", "20260207")):
        opensuse_tree(root / "opensuse", picture, version, serial)
    more_trees(root, picture)
    list_directories(root)
    return root


def more_trees(root: Path, picture: Path) -> None:
    """Lay *picture* out as the images that are modelled on the servers' published form alone."""
    for serial in ("20260912-2300", "20260913-2301"):
        debian_tree(root / "debian", picture, "sid", serial, daily=True)
    debian_tree(root / "debian", picture, "14", "20260913-2301", daily=True)
    rawhide_tree(root / "fedora", picture)
    for minor, build in (("10.1", "20260101.0"), ("10.2", "20260526.0"), ("9.8", "20260526.0")):
        almalinux_tree(root / "almalinux", picture, minor, build)
        rocky_tree(root / "rocky", picture, minor, build)
    rocky_tree(root / "rocky", picture, "10.2", "20260610.0")
    # A minor release that has no images yet, or no more.
    for distro in ("almalinux", "rocky"):
        (root / distro / "10.3").mkdir()
        (root / distro / "8.9/isos").mkdir(parents=True)
        (root / distro / "7.9").mkdir()
        (root / distro / "11.0").mkdir()
    for build in ("20260720.0", "20260706.0"):
        centos_tree(root / "centos", picture, build=build)
    centos_tree(root / "centos", picture, "9", "20260713.0")
    oraclelinux_tree(root / "oraclelinux", picture)
    oraclelinux_tree(root / "oraclelinux", picture, "9", "7", "301")
    for version in ("2023.11.20260601.0", "2023.12.20260917.1"):
        amazonlinux_tree(root / "amazonlinux", picture, version)
    for version in ("2025.4", "2026.2", "2026.1"):
        kali_tree(root / "kali", picture, version)


@pytest.fixture
def server(tree: Path) -> Iterator[ImageServer]:
    with ImageServer(tree) as running:
        yield running


def settings(server: ImageServer) -> Settings:
    distros = [one for one in DISTROS if one != "ubuntu"]
    mirrors = {distro: f"{server.url}{distro}/" for distro in distros}
    return Settings(
        mirrors={"ubuntu": f"{server.url}ubuntu/releases/", **mirrors},
        web=quick(),
        verify=Verify.DIGEST,
    )


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


DEBIAN = "debian/{0}/{1}/debian-{2}-{3}-arm64{4}-{1}.qcow2"
FEDORA = "fedora/releases/{0}/Cloud/aarch64/images/{1}"
ALPINE = "alpine/v{0}/releases/cloud/nocloud_alpine-{1}-aarch64-uefi-cloudinit-r0.qcow2"
LEAP = "opensuse/distribution/leap/{0}/appliances/{1}"
ALMA = "almalinux/{0}/cloud/aarch64/images/AlmaLinux-10-GenericCloud-{1}.aarch64.qcow2"
ROCKY = "rocky/{0}/images/aarch64/Rocky-10-GenericCloud-Base-{1}.aarch64.qcow2"
CENTOS = "centos/{0}-stream/aarch64/images/CentOS-Stream-GenericCloud-{0}-{1}.aarch64.qcow2"
KALI = "kali/kali-{0}/kali-linux-{0}-cloud-genericcloud-arm64.tar.xz"
AMAZON = "amazonlinux/{0}/kvm-arm64/al2023-kvm-{0}-kernel-6.1-arm64.xfs.gpt.qcow2"
UBUNTU = "ubuntu/{0}server/releases/noble/release-{1}/ubuntu-24.04-server-cloudimg-arm64.img"


@pytest.mark.parametrize(
    ("text", "reference", "serial", "path"),
    [
        ("ubuntu:lts", "ubuntu:24.04", "20260911", UBUNTU.format("releases/", "20260911")),
        (
            "ubuntu:noble/20240423",
            "ubuntu:24.04/20240423",
            "20240423",
            UBUNTU.format("releases/", "20240423"),
        ),
        (
            "ubuntu:devel@daily",
            "ubuntu:24.04@daily",
            "20260911.1",
            UBUNTU.format("daily/", "20260911.1"),
        ),
        (
            "ubuntu:24.04/20260910@minimal",
            "ubuntu:24.04/20260910@minimal",
            "20260910",
            UBUNTU.format("minimal/releases/", "20260910"),
        ),
        (
            "debian:13",
            "debian:13",
            "20250814-2204",
            DEBIAN.format("trixie", "20250814-2204", "13", "genericcloud", ""),
        ),
        (
            "debian:bookworm@genericcloud",
            "debian:12",
            "20250814-2205",
            DEBIAN.format("bookworm", "20250814-2205", "12", "genericcloud", ""),
        ),
        (
            "debian:trixie/20250806-2196@generic",
            "debian:13/20250806-2196@generic",
            "20250806-2196",
            DEBIAN.format("trixie", "20250806-2196", "13", "generic", ""),
        ),
        (
            "debian:12@daily",
            "debian:12@daily",
            "20250901-2222",
            DEBIAN.format("bookworm/daily", "20250901-2222", "12", "genericcloud", "-daily"),
        ),
        (
            "fedora:43",
            "fedora:43",
            "1.10",
            FEDORA.format("43", "Fedora-Cloud-Base-Generic-43-1.10.aarch64.qcow2"),
        ),
        (
            "fedora:43/1.6",
            "fedora:43/1.6",
            "1.6",
            FEDORA.format("43", "Fedora-Cloud-Base-Generic-43-1.6.aarch64.qcow2"),
        ),
        (
            "fedora:40",
            "fedora:40",
            "1.14",
            FEDORA.format("40", "Fedora-Cloud-Base-Generic.aarch64-40-1.14.qcow2"),
        ),
        (
            "fedora:39",
            "fedora:39",
            "1.5",
            FEDORA.format("39", "Fedora-Cloud-Base-39-1.5.aarch64.qcow2"),
        ),
        ("alpine:3.22", "alpine:3.22", "3.22.10-r0", ALPINE.format("3.22", "3.22.10")),
        ("alpine:latest", "alpine:3.22", "3.22.10-r0", ALPINE.format("3.22", "3.22.10")),
        (
            "alpine:3.22.9",
            "alpine:3.22/3.22.9-r0",
            "3.22.9-r0",
            ALPINE.format("3.22", "3.22.9"),
        ),
        (
            "alpine:3.22/3.22.9-r0",
            "alpine:3.22/3.22.9-r0",
            "3.22.9-r0",
            ALPINE.format("3.22", "3.22.9"),
        ),
        (
            "opensuse:leap",
            "opensuse:16.0",
            "18.10",
            LEAP.format("16.0", "Leap-16.0-Minimal-VM.aarch64-Cloud-Build18.10.qcow2"),
        ),
        (
            "opensuse:16.0/18.7",
            "opensuse:16.0/18.7",
            "18.7",
            LEAP.format("16.0", "Leap-16.0-Minimal-VM.aarch64-Cloud-Build18.7.qcow2"),
        ),
        (
            "opensuse:15.6",
            "opensuse:15.6",
            None,
            LEAP.format("15.6", "openSUSE-Leap-15.6-Minimal-VM.aarch64-Cloud.qcow2"),
        ),
        (
            "opensuse:tumbleweed",
            "opensuse:tumbleweed",
            "20260207",
            "opensuse/ports/aarch64/tumbleweed/appliances/"
            "openSUSE-Tumbleweed-Minimal-VM.aarch64-1.0.0-Cloud-Snapshot20260207.qcow2",
        ),
        (
            "debian:sid",
            "debian:sid@daily",
            "20260913-2301",
            DEBIAN.format("sid/daily", "20260913-2301", "sid", "genericcloud", "-daily"),
        ),
        (
            "debian:unstable/20260912-2300",
            "debian:sid/20260912-2300@daily",
            "20260912-2300",
            DEBIAN.format("sid/daily", "20260912-2300", "sid", "genericcloud", "-daily"),
        ),
        (
            "debian:testing",
            "debian:14@daily",
            "20260913-2301",
            DEBIAN.format("forky/daily", "20260913-2301", "14", "genericcloud", "-daily"),
        ),
        (
            "debian:stable",
            "debian:13",
            "20250814-2204",
            DEBIAN.format("trixie", "20250814-2204", "13", "genericcloud", ""),
        ),
        (
            "fedora:rawhide",
            "fedora:rawhide",
            "20260912.n.0",
            "fedora/development/rawhide/Cloud/aarch64/images/"
            "Fedora-Cloud-Base-Generic-Rawhide-20260912.n.0.aarch64.qcow2",
        ),
        (
            "almalinux:latest",
            "almalinux:10",
            "10.2-20260526.0",
            ALMA.format("10.2", "10.2-20260526.0"),
        ),
        (
            "almalinux:10/10.1-20260101.0",
            "almalinux:10/10.1-20260101.0",
            "10.1-20260101.0",
            ALMA.format("10.1", "10.1-20260101.0"),
        ),
        (
            "almalinux:10.1",
            "almalinux:10.1",
            "10.1-20260101.0",
            ALMA.format("10.1", "10.1-20260101.0"),
        ),
        ("rocky:10", "rocky:10", "10.2-20260610.0", ROCKY.format("10.2", "10.2-20260610.0")),
        ("centos:10", "centos:10", "20260720.0", CENTOS.format("10", "20260720.0")),
        ("centos:9", "centos:9", "20260713.0", CENTOS.format("9", "20260713.0")),
        (
            "oraclelinux:10",
            "oraclelinux:10",
            "10.1-b178",
            "oraclelinux/OL10/u1/aarch64/OL10U1_aarch64-kvm-cloud-b178.qcow2",
        ),
        ("kali:latest", "kali:2026.2", None, KALI.format("2026.2")),
        ("kali:2025.4", "kali:2025.4", None, KALI.format("2025.4")),
        (
            "amazonlinux:latest",
            "amazonlinux:2023",
            "2023.12.20260917.1",
            AMAZON.format("2023.12.20260917.1"),
        ),
        (
            "amazonlinux:2023/2023.11.20260601.0",
            "amazonlinux:2023/2023.11.20260601.0",
            "2023.11.20260601.0",
            AMAZON.format("2023.11.20260601.0"),
        ),
    ],
)
def test_the_right_image(
    server: ImageServer, tree: Path, text: str, reference: str, serial: str | None, path: str
) -> None:
    source = resolve(text, settings(server))
    assert (source.reference, source.serial) == (reference, serial)
    assert source.location == server.url + path
    assert source.verified is Verified.CATALOG
    distro, _, rest = reference.partition(":")
    version = rest.partition("/")[0].partition("@")[0]
    if distro in LAYOUTS:  # libosinfo knows these by their major release
        version = version.partition(".")[0]
    assert source.system == OperatingSystem(distro=distro, version=version)
    assert (tree / path).is_file()
    # The reference that it is called by from now on means the same image.
    again = resolve(source.reference, settings(server))
    assert again == source


def test_the_digest_is_the_published_one(
    server: ImageServer, picture: Path, tmp_path: Path
) -> None:
    for distro, kind, tree_of in (
        ("debian:13", "sha512", debian_tree),
        ("fedora:43", "sha256", fedora_tree),
        ("alpine:3.22", "sha512", alpine_tree),
        ("opensuse:16.0", "sha256", opensuse_tree),
    ):
        promised = tree_of(tmp_path / distro.partition(":")[0], picture).digest
        assert promised.startswith(kind)
        assert resolve(distro, settings(server)).digest == promised


def test_images_with_a_sha256_arrive(server: ImageServer, cache: Cache, picture: Path) -> None:
    for text in ("ubuntu:24.04@minimal", "fedora:43", "opensuse:tumbleweed", "opensuse:15.6"):
        source = resolve(text, settings(server))
        image = obtain(source, cache=cache, progress=Quiet(), web=quick())
        assert image.path.read_bytes() == picture.read_bytes()


@pytest.mark.skipif(
    "published" not in Entry.__dataclass_fields__, reason="this cache knows no sha512 yet"
)
def test_images_with_a_sha512_arrive(server: ImageServer, cache: Cache, picture: Path) -> None:
    for text in ("debian:13", "alpine:3.22"):
        source = resolve(text, settings(server))
        image = obtain(source, cache=cache, progress=Quiet(), web=quick())
        assert image.path.read_bytes() == picture.read_bytes()
        assert image.digest == f"sha256:{hashlib.sha256(picture.read_bytes()).hexdigest()}"
        again = obtain(resolve(text, settings(server)), cache=cache, progress=Quiet(), web=quick())
        assert again.path == image.path
    assert len(cache.entries()) == 1


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ubuntu:23.04", "24.04 (noble)"),
        ("ubuntu:devel", "ubuntu:devel@daily"),
        ("ubuntu:24.04/20200101", "20260911, 20240423"),
        ("debian:15", "debian:14, debian:13"),
        ("debian:sid/20200101-1", "20260913-2301"),
        ("debian:experimental", "debian:14, debian:13"),
        ("debian:13/2025", "20250814-2204, 20250806-2196"),
        ("debian:13/20240101-1111", "20250814-2204, 20250806-2196"),
        ("debian:14", "debian:14@daily"),
        ("fedora:99", "fedora:44, fedora:43"),
        ("fedora:branched", "fedora:44"),
        ("fedora:rawhide/20200101.n.0", "20260912.n.0"),
        ("fedora:43/1.99", "1.10, 1.6"),
        ("alpine:3.99", "alpine:3.22, alpine:3.21"),
        ("alpine:edge", "alpine:3.22"),
        ("alpine:3.22.77", "3.22.10-r0, 3.22.9-r0"),
        ("alpine:3.22/3.21.4-r0", "3.22.10-r0"),
        ("opensuse:42.3", "opensuse:16.0, opensuse:15.6, opensuse:tumbleweed"),
        ("opensuse:14.0", "opensuse:16.0"),
        ("opensuse:16.0/1.1", "18.10, 18.7"),
        ("opensuse:tumbleweed/20200101", "20260207"),
        ("almalinux:7", "almalinux:11, almalinux:10, almalinux:9"),
        ("almalinux:10.7", "almalinux:10, almalinux:9"),
        ("almalinux:kitten", "almalinux:10"),
        ("almalinux:11", "armvm image list --remote"),
        ("rocky:10/10.2-20260101.0", "10.2-20260610.0, 10.2-20260526.0"),
        ("rocky:8", "armvm image list --remote"),
        ("centos:8", "centos:10, centos:9"),
        ("centos:10/20200101.0", "20260720.0, 20260706.0"),
        ("oraclelinux:7", "oraclelinux:10, oraclelinux:9"),
        ("oraclelinux:8", "oraclelinux:10, oraclelinux:9"),
        ("oraclelinux:10/10.0-b1", "10.1-b178"),
        ("kali:2020.1", "kali:2026.2, kali:2026.1, kali:2025.4"),
        ("kali:rolling", "kali:2026.2"),
        ("kali:2026.2/20260801", "armvm image list --remote"),
        ("amazonlinux:2", "amazonlinux:2023"),
        ("amazonlinux:2023/2023.1", "2023.12.20260917.1"),
        ("amazonlinux:2023/2023.1.20250101.0", "2023.12.20260917.1"),
    ],
)
def test_what_is_not_there_names_what_is(server: ImageServer, text: str, hint: str) -> None:
    with pytest.raises(NotFound) as caught:
        resolve(text, settings(server))
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["ubuntu:24.04@tiny", "fedora:43@daily", "debian:12@nocloud"])
def test_variants_that_are_none(server: ImageServer, text: str) -> None:
    with pytest.raises(ConfigError, match="unknown variant"):
        resolve(text, settings(server))
    assert server.requests == []


def test_a_release_without_images_for_arm64(server: ImageServer) -> None:
    with pytest.raises(FetchFailed, match="404"):
        resolve("fedora:44", settings(server))


def test_a_checksum_document_without_the_image(server: ImageServer) -> None:
    sums = "debian/trixie/20250814-2204/SHA512SUMS"
    for body in (b"", b"html", b"ab  debian-13-genericcloud-arm64-20250814-2204.qcow2\n"):
        server.fault(sums, Fault(body=body))
        with pytest.raises(FetchFailed, match="no digest"):
            resolve("debian:13", settings(server))


def test_a_manifest_without_a_serial(server: ImageServer) -> None:
    path = "debian/trixie/latest/debian-13-genericcloud-arm64.json"
    for body in (b"{}", b"[]", b'{"items": 3}', b"[" * 100_000, b'{"items": [{"metadata": 3}]}'):
        server.fault(path, Fault(body=body))
        with pytest.raises(FetchFailed, match="contains no serial"):
            resolve("debian:13", settings(server))


def find(catalog: Catalog, text: str) -> Found:
    reference = parse(text)
    assert isinstance(reference, CatalogReference)
    return catalog.find(reference, Asking(web=quick(), verify=Verify.DIGEST))


def test_who_signs_what(server: ImageServer) -> None:
    known = settings(server).catalogs()
    fedora = find(known["fedora"], "fedora:43").statement
    assert fedora and fedora.clear and fedora.keys == Fedora().keys_of("43")
    assert [key.owner for key in fedora.keys] == ["Fedora 43"]
    # A release whose key is not pinned must not pass for unsigned.
    assert len(Fedora().keys_of("99")) > 1
    suse = find(known["opensuse"], "opensuse:16.0").statement
    assert suse and suse.signature == f"{suse.url}.asc" and suse.keys == OPENSUSE
    for text in ("debian:13", "alpine:3.22"):
        unsigned = find(known[text.partition(":")[0]], text).statement
        assert unsigned and not unsigned.keys and not unsigned.clear


def listed(server: ImageServer, name: str, *, every: bool = False) -> list[Offer]:
    wanted = settings(server)
    return wanted.catalogs()[name].releases(wanted.asking(Quiet()), every=every)


def test_what_there_is(server: ImageServer) -> None:
    newest = {
        name: [(one.reference, one.serial) for one in listed(server, name)] for name in DISTROS
    }
    assert newest == {
        "ubuntu": [("ubuntu:24.04", "20260911"), ("ubuntu:22.04", "20260828")],
        "debian": [
            ("debian:13", "20250814-2204"),
            ("debian:12", "20250814-2205"),
            ("debian:sid@daily", "20260913-2301"),
        ],
        "fedora": [
            ("fedora:43", "1.10"),
            ("fedora:40", "1.14"),
            ("fedora:39", "1.5"),
            ("fedora:rawhide", "20260912.n.0"),
        ],
        "alpine": [("alpine:3.22", "3.22.10-r0"), ("alpine:3.21", "3.21.4-r0")],
        "opensuse": [
            ("opensuse:tumbleweed", "20260207"),
            ("opensuse:16.0", "18.10"),
            ("opensuse:15.6", None),
        ],
        "almalinux": [("almalinux:10", "10.2-20260526.0"), ("almalinux:9", "9.8-20260526.0")],
        "rocky": [("rocky:10", "10.2-20260610.0"), ("rocky:9", "9.8-20260526.0")],
        "centos": [("centos:10", "20260720.0"), ("centos:9", "20260713.0")],
        "oraclelinux": [("oraclelinux:10", "10.1-b178"), ("oraclelinux:9", "9.7-b301")],
        "amazonlinux": [("amazonlinux:2023", "2023.12.20260917.1")],
        "kali": [("kali:2026.2", None)],
    }


def test_everything_there_is_can_be_had(server: ImageServer) -> None:
    """Each line of image list --remote --all is a reference to the very image of that line."""
    for name in DISTROS:
        offers = listed(server, name, every=True)
        assert len(offers) == len({one.reference for one in offers})
        for offer in offers:
            source = resolve(offer.reference, settings(server))
            assert (source.reference, source.serial) == (offer.reference, offer.serial)


UNREACHABLE = "http://127.0.0.1:1/"


def stored(cache: Cache, source: FromImage, picture: Path, number: int) -> None:
    """Put an image into the cache as what *source* is; each *number* has bytes of its own."""
    body = picture.read_bytes() + bytes([number])
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    with cache.partial(digest) as partial:
        partial.write_bytes(body)
        cache.store(partial, source=replace(source, digest=digest), digest=digest)


def test_the_cache_stands_in_for_each_catalog(
    server: ImageServer, cache: Cache, picture: Path
) -> None:
    references = (
        "ubuntu:24.04", "ubuntu:22.04", "ubuntu:24.04@daily", "debian:12", "debian:13@generic",
        "fedora:43", "fedora:40", "alpine:3.22.9", "alpine:3.22", "opensuse:16.0",
        "opensuse:15.6", "opensuse:tumbleweed", "debian:sid", "fedora:rawhide", "almalinux:10",
        "rocky:9", "centos:9", "oraclelinux:9", "amazonlinux:2023", "kali:latest",
    )  # fmt: skip
    for number, text in enumerate(references):
        stored(cache, resolve(text, settings(server)), picture, number)
    away = Settings(mirrors=dict.fromkeys(DISTROS, UNREACHABLE), web=quick(), verify=Verify.DIGEST)
    for text, reference, serial in (
        ("ubuntu:lts", "ubuntu:24.04", "20260911"),
        ("ubuntu:jammy", "ubuntu:22.04", "20260828"),
        ("ubuntu:noble@daily", "ubuntu:24.04@daily", "20260911.1"),
        ("debian:bookworm", "debian:12", "20250814-2205"),
        ("debian:13@generic", "debian:13@generic", "20250814-2204"),
        ("debian:12@genericcloud", "debian:12", "20250814-2205"),
        ("fedora:latest", "fedora:43", "1.10"),
        ("fedora:40", "fedora:40", "1.14"),
        ("alpine:3.22", "alpine:3.22", "3.22.10-r0"),
        ("alpine:3.22/3.22.9-r0", "alpine:3.22/3.22.9-r0", "3.22.9-r0"),
        ("opensuse:leap", "opensuse:16.0", "18.10"),
        ("opensuse:15.6", "opensuse:15.6", None),
        ("opensuse:tumbleweed", "opensuse:tumbleweed", "20260207"),
        ("debian:sid@daily", "debian:sid@daily", "20260913-2301"),
        ("fedora:rawhide", "fedora:rawhide", "20260912.n.0"),
        ("almalinux:latest", "almalinux:10", "10.2-20260526.0"),
        ("rocky:9", "rocky:9", "9.8-20260526.0"),
        ("oraclelinux:9", "oraclelinux:9", "9.7-b301"),
        ("amazonlinux:latest", "amazonlinux:2023", "2023.12.20260917.1"),
        ("kali:latest", "kali:2026.2", None),
    ):
        progress = Heard()
        source = resolve(text, away, cache=cache, progress=progress)
        assert (source.reference, source.serial) == (reference, serial), text
        assert source.verified is Verified.CATALOG
        assert reference in progress.warned[0] and "from the cache" in progress.warned[0]
    for text in ("debian:13", "fedora:39", "ubuntu:24.04@minimal", "alpine:3.22/3.22.8-r0"):
        with pytest.raises(Unreachable):
            resolve(text, away, cache=cache)
    # None of these was signed: where a signature is the rule, they stand in for nothing.
    for policy, text in (
        (Verify.SIGNATURE, "ubuntu:24.04"),
        (Verify.SIGNATURE, "debian:12"),
        (None, "ubuntu:24.04"),
        (None, "fedora:43"),
        (None, "opensuse:16.0"),
    ):
        with pytest.raises(Unreachable):
            resolve(text, replace(away, verify=policy), cache=cache)
    for text in ("debian:12", "alpine:3.22"):
        assert resolve(text, replace(away, verify=None), cache=cache).serial


def test_a_signature_asked_for_is_not_replaced_by_less(server: ImageServer) -> None:
    strict = replace(settings(server), verify=Verify.SIGNATURE)
    for text in ("debian:13", "alpine:3.22"):
        with pytest.raises(NotVerified):
            resolve(text, strict)
    for text in ("ubuntu:24.04", "fedora:43", "opensuse:16.0"):
        with pytest.raises(SignatureInvalid):
            resolve(text, strict)
        with pytest.raises(SignatureInvalid):
            resolve(text, replace(strict, verify=None))


def test_where_nothing_is_verified_nothing_is_promised(server: ImageServer) -> None:
    lax = replace(settings(server), verify=Verify.NONE)
    for text in ("ubuntu:24.04", "debian:13", "fedora:43", "alpine:3.22", "opensuse:16.0"):
        source = resolve(text, lax)
        assert (source.digest, source.verified) == (None, Verified.NOTHING)


def test_recorded_documents() -> None:
    manifest = (DATA / "debian-13-genericcloud-arm64.json").read_bytes()
    assert serial_in(manifest) == "20250814-2204"
    fedora = digests((DATA / "Fedora-Cloud-40-1.14-aarch64-CHECKSUM").read_bytes())
    assert fedora["Fedora-Cloud-Base-Generic.aarch64-40-1.14.qcow2"].startswith("sha256:ebdce26d")
    for file, version, serial, digest in (
        ("Leap-16.0-Minimal-VM.aarch64-Cloud.qcow2", "16.0", "", "efd9fe80"),
        ("openSUSE-Leap-15.6-Minimal-VM.aarch64-Cloud.qcow2", "15.6", "", "d2ff4017"),
        (
            "openSUSE-Tumbleweed-Minimal-VM.aarch64-1.0.0-Cloud-Snapshot20260207.qcow2",
            "tumbleweed",
            "20260207",
            "0041ced2",
        ),
    ):
        document = (DATA / f"{file}.sha256").read_bytes()
        assert (digest_in(document, file, version, serial) or "")[:15] == f"sha256:{digest}"
    alone = digests((DATA / "alpine.sha512").read_bytes())
    assert [one[:7] for one in alone.values()] == ["sha512:"]


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("Fedora-Cloud-Base-Generic-43-1.6.aarch64.qcow2", "fedora 43"),
        ("Fedora-Cloud-Base-Generic.aarch64-40-1.14.qcow2", "fedora 40"),
        ("nocloud_alpine-3.22.1-aarch64-uefi-cloudinit-r0.qcow2", "alpine 3.22"),
        ("Leap-16.0-Minimal-VM.aarch64-Cloud-Build18.7.qcow2", "opensuse 16.0"),
        ("openSUSE-Tumbleweed-Minimal-VM.aarch64-Cloud.qcow2", "opensuse tumbleweed"),
        ("debian-13-genericcloud-arm64-20250814-2204.qcow2", "debian 13"),
        ("noble-server-cloudimg-arm64.img", "ubuntu 24.04"),
        ("Fedora-Server-KVM-43-1.6.aarch64.qcow2", "None"),
        ("disk.qcow2", "None"),
    ],
)
def test_the_system_by_an_images_own_name(name: str, system: str) -> None:
    assert str(resolve(f"https://images.example/{name}", Settings()).system) == system


def test_directory_pages() -> None:
    debian = names((DATA / "apache.html").read_bytes(), "/images/cloud/trixie/")
    assert debian == ["20250806-2196/", "20250814-2204/", "daily/", "latest/"]
    alpine = names((DATA / "nginx.html").read_bytes(), "/alpine/v3.22/releases/cloud/")
    assert "nocloud_alpine-3.22.1-aarch64-uefi-cloudinit-r0.qcow2" in alpine
    assert len(alpine) == 7
    suse = names((DATA / "mirrorcache.html").read_bytes(), "/distribution/leap/16.0/appliances/")
    assert "Leap-16.0-Minimal-VM.x86_64-Cloud-Build18.7.qcow2" in suse
    assert len(suse) == 6


@pytest.mark.parametrize(
    "target",
    [
        "../", "..", "/etc/passwd", "//evil.example/x", "http://evil.example/x", "a/b", "%2e%2e/",
        "x?y", "x#y", "", ".hidden", "javascript:alert(1)", "x\\y", "é", "x y", "a" * 600,
    ],
)  # fmt: skip
def test_what_a_directory_page_cannot_name(target: str) -> None:
    assert names(f'<a href="{target}">x</a>'.encode(), "/pub/") == []


OL10 = "OL10U1_aarch64-kvm-cloud-b178.qcow2"
SUMS = "amazonlinux/latest/kvm-arm64/SHA256SUMS"
ORACLE = "oraclelinux/ol10_aarch64-cloud-template.json"


@pytest.mark.parametrize(
    ("text", "path", "body"),
    [
        ("amazonlinux:2023", SUMS, b"a" * 64 + b"  al2023-kvm-../../x.qcow2\n"),
        ("amazonlinux:2023", SUMS, b"a" * 64 + b"  al2023-container-arm64.tar.xz\n"),
        ("oraclelinux:10", ORACLE, b"[]"),
        ("oraclelinux:10", ORACLE, b"[" * 100_000),
        ("oraclelinux:10", ORACLE, b'{"base_url": 3, "kvm": []}'),
        *(
            (
                "oraclelinux:10",
                ORACLE,
                json.dumps({"base_url": place, "kvm": {"image": image, "sha256": digest}}).encode(),
            )
            for place, image, digest in (
                ("/../OL10/u1/aarch64", OL10, "a" * 64),
                ("http://x/templates/OracleLinux/OL10/u1/aarch64", OL10, "a" * 64),
                ("/templates/OracleLinux/OL9/u1/aarch64", OL10, "a" * 64),
                ("/templates/OracleLinux/OL10/u1/aarch64", f"../{OL10}", "a" * 64),
                ("/templates/OracleLinux/OL10/u1/aarch64", OL10, "a" * 63),
                ("/templates/OracleLinux/OL10/u1/aarch64", None, None),
            )
        ),
    ],
)
def test_lists_that_lead_elsewhere_are_refused(
    server: ImageServer, text: str, path: str, body: bytes
) -> None:
    server.fault(path, Fault(body=body))
    with pytest.raises(FetchFailed):
        resolve(text, settings(server))


@pytest.mark.parametrize("path", ["amazonlinux/latest/", SUMS])
def test_latest_of_amazon_may_redirect(server: ImageServer, path: str) -> None:
    version = "2023.11.20260601.0"
    target = f"/amazonlinux/{version}/" + path.removeprefix("amazonlinux/latest/")
    server.fault(path, Fault(status=302, location=target))
    source = resolve("amazonlinux:2023", settings(server))
    assert source.location == server.url + AMAZON.format(version)


def test_a_long_list_of_minor_releases_is_not_read_in_full(server: ImageServer) -> None:
    """Some directories of the newest minor releases; an empty one counts as well."""
    page = "".join(f'<a href="10.{number}/">x</a>' for number in range(10, 99)).encode()
    server.fault("rocky/", Fault(body=page))
    before = len(server.requests)
    with pytest.raises(NotFound):
        resolve("rocky:10", settings(server))
    assert len(server.requests) - before < 10
