"""Real signed documents of Ubuntu, Fedora and openSUSE, against the keys that are pinned.

They come from a real server on loopback, through the code that fetches them for a user; see
tests/data/signed/README.md for what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base.errors import SignatureInvalid
from armvm.base.progress import Quiet
from armvm.images.distros import simplestreams
from armvm.images.distros.opensuse import digest_in
from armvm.images.trust import cleartext, packets
from armvm.images.trust.checksums import digests
from armvm.images.trust.keyring import KeyStore
from armvm.images.trust.openpgp import Key
from armvm.images.trust.pinned import FEDORA, OPENSUSE, UBUNTU
from armvm.images.trust.statement import Attested, Statement, attest
from tests.image_server import Fault, ImageServer
from tests.images_tools import quick

pytestmark = pytest.mark.unit

REAL = Path(__file__).parent.parent / "data/signed"
CHECKSUM = "Fedora-Cloud-44-1.7-aarch64-CHECKSUM"
LEAP = "Leap-16.0-Minimal-VM.aarch64-Cloud-Build18.7.qcow2"
FILES = {
    "ubuntu": "ubuntu-cloudimage-keyring.gpg",
    "fedora": "f44.gpg",
    "opensuse": "suse22.gpg",
}


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer(REAL) as running:
        yield running


def known(keys: tuple[Key, ...], distro: str) -> tuple[Key, ...]:
    """The pinned keys, whose certificates are in the tests' data."""
    return tuple(replace(key, keyrings=(str(REAL / FILES[distro]),)) for key in keys)


def attested(
    server: ImageServer,
    tmp_path: Path,
    file: str,
    keys: tuple[Key, ...],
    signature: str | None = None,
) -> Attested:
    statement = Statement(
        url=f"{server.url}{file}",
        signature=f"{server.url}{signature}" if signature else None,
        clear=signature is None,
        keys=keys,
    )
    store = KeyStore(
        directory=tmp_path / "keys", servers=("http://127.0.0.1:1",), http_loopback=True
    )
    return attest(quick(), statement, policy=None, keys=store, progress=Quiet())


def test_ubuntus_index(server: ImageServer, tmp_path: Path) -> None:
    found = attested(server, tmp_path, "index.sjson", known(UBUNTU, "ubuntu"))
    assert found.signer == "4A3CE3CD565D7EB5C810E2B97FF3F408476CF100"
    path = simplestreams.products_path(found.document)
    assert path == "streams/v1/com.ubuntu.cloud:released:download.sjson"


def test_ubuntus_checksums(server: ImageServer, tmp_path: Path) -> None:
    keys = known(UBUNTU, "ubuntu")
    found = attested(server, tmp_path, "jammy.SHA256SUMS", keys, "jammy.SHA256SUMS.gpg")
    assert found.signer == "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"
    assert digests(found.document)["ubuntu-22.04-server-cloudimg-arm64.img"].startswith("sha256:")


def test_a_signature_by_sha1_is_refused(server: ImageServer, tmp_path: Path) -> None:
    keys = known(UBUNTU, "ubuntu")
    with pytest.raises(SignatureInvalid, match="can be forged"):
        attested(server, tmp_path, "mantic.SHA256SUMS", keys, "mantic.SHA256SUMS.gpg")


def test_fedoras_checksums(server: ImageServer, tmp_path: Path) -> None:
    found = attested(server, tmp_path, CHECKSUM, known((FEDORA["44"],), "fedora"))
    assert found.signer == FEDORA["44"].fingerprint
    assert "Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2" in digests(found.document)


def test_opensuses_checksum(server: ImageServer, tmp_path: Path) -> None:
    keys = known(OPENSUSE, "opensuse")
    found = attested(server, tmp_path, "leap.sha256", keys, "leap.sha256.asc")
    assert found.signer == OPENSUSE[0].fingerprint
    assert digest_in(found.document, LEAP, "16.0", "18.7")


def test_the_pinned_keys_are_the_published_ones() -> None:
    for distro, keys in (("ubuntu", UBUNTU), ("fedora", (FEDORA["44"],)), ("opensuse", OPENSUSE)):
        found = packets.certificates((REAL / FILES[distro]).read_bytes())
        assert {key.fingerprint for key in keys} <= {one.fingerprint for one in found}


@pytest.mark.parametrize(
    ("file", "signature", "distro", "keys"),
    [
        ("index.sjson", None, "ubuntu", UBUNTU),
        ("jammy.SHA256SUMS", "jammy.SHA256SUMS.gpg", "ubuntu", UBUNTU),
        (CHECKSUM, None, "fedora", (FEDORA["44"],)),
        ("leap.sha256", "leap.sha256.asc", "opensuse", OPENSUSE),
    ],
)
def test_changed_and_cut_ones_are_refused(
    server: ImageServer,
    tmp_path: Path,
    file: str,
    signature: str | None,
    distro: str,
    keys: tuple[Key, ...],
) -> None:
    good = (REAL / file).read_bytes()
    middle = len(good) // 2
    changed = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    for bad in (changed, good[: middle or 1], good[:-60]):
        server.fault(file, Fault(body=bad))
        with pytest.raises(SignatureInvalid):
            attested(server, tmp_path, file, known(keys, distro), signature)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (-1200, "signature is missing or truncated"),
        (-40, "the end of its signature is missing"),
        (None, "has text after its signature"),
    ],
)
def test_a_cut_document_is_told_as_such(end: int | None, why: str) -> None:
    good = (REAL / "index.sjson").read_bytes()
    with pytest.raises(ValueError, match=why):
        cleartext.split(good[:end] if end else good + b"more\n")
