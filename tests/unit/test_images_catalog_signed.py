"""Signed catalogs, with real keys: the pinned signer is accepted, others are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base.errors import FetchFailed, SignatureInvalid
from armvm.base.progress import Quiet
from armvm.images.cache.store import Cache
from armvm.images.distros.catalog import Asking, Catalog, Found
from armvm.images.distros.fedora import Fedora
from armvm.images.distros.opensuse import OpenSuse
from armvm.images.model import FromImage, Verified
from armvm.images.reference import CatalogReference, parse
from armvm.images.resolve import Settings, obtain, resolve
from armvm.images.trust.keyring import KeyStore
from armvm.images.trust.statement import Attested, attest
from armvm.settings.verify import Verify
from tests.catalog_trees import Placed, fedora_tree, list_directories, opensuse_tree
from tests.image_server import Fault, ImageServer, ubuntu_tree
from tests.images_tools import qcow2_image, quick
from tests.openpgp_tools import Gpg, pin, sign_tree

pytestmark = pytest.mark.unit

PRODUCTS = "streams/v1/com.ubuntu.cloud:released:download"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qcow2_image(tmp_path_factory.mktemp("image") / "disk.img", payload=300_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "www").mkdir()
    return tmp_path / "www"


@pytest.fixture
def server(root: Path) -> Iterator[ImageServer]:
    with ImageServer(root) as running:
        yield running


@pytest.fixture
def keyring(tmp_path: Path, gpg: Gpg) -> Path:
    file = tmp_path / "keys.gpg"
    file.write_bytes(gpg.export())
    return file


@pytest.fixture
def ask(tmp_path: Path) -> Asking:
    return Asking(
        web=quick(),
        keys=KeyStore(
            directory=tmp_path / "keys", servers=("http://127.0.0.1:1",), http_loopback=True
        ),
    )


def promise(catalog: Catalog, text: str, ask: Asking) -> tuple[Found, str, Attested]:
    """Find an image, check who promises its digest, and return both and the digest."""
    reference = parse(text)
    assert isinstance(reference, CatalogReference)
    found = catalog.find(reference, ask)
    assert found.statement is not None
    attested = attest(
        ask.web, found.statement, policy=ask.verify, keys=ask.keys, progress=ask.progress
    )
    return found, found.promised(attested.document), attested


def fedora(server: ImageServer, root: Path, picture: Path, gpg: Gpg, key: str) -> Placed:
    placed = fedora_tree(root, picture)
    sums = root / placed.sums
    text = b"".join(
        line for line in sums.read_bytes().splitlines(keepends=True) if b"SHA256 (" in line
    )
    sums.write_bytes(gpg.clear(key, text))
    list_directories(root)
    return placed


def test_fedora(
    server: ImageServer, root: Path, picture: Path, gpg: Gpg, ours: str, keyring: Path, ask: Asking
) -> None:
    placed = fedora(server, root, picture, gpg, ours)
    catalog = Fedora(base=server.url, keys={"43": pin(ours, "Fedora 43", keyring)})
    found, digest, attested = promise(catalog, "fedora:43", ask)
    assert found.location == server.url + placed.path
    assert digest == placed.digest
    assert (attested.verified, attested.signer) == (Verified.SIGNATURE, ours)


def test_fedora_signed_by_another(
    server: ImageServer, root: Path, picture: Path, gpg: Gpg, ours: str, another: str,
    keyring: Path, ask: Asking,
) -> None:  # fmt: skip
    fedora(server, root, picture, gpg, another)
    for known in ("43", "42"):  # the release's own key, and one whose key is not pinned
        catalog = Fedora(base=server.url, keys={known: pin(ours, "Fedora", keyring)})
        with pytest.raises(SignatureInvalid, match="not by Fedora"):
            promise(catalog, "fedora:43", ask)
    weaker = replace(ask, verify=Verify.DIGEST)
    assert promise(catalog, "fedora:43", weaker)[2].verified is Verified.CATALOG


def test_opensuse(
    server: ImageServer, root: Path, picture: Path, gpg: Gpg, ours: str, keyring: Path, ask: Asking
) -> None:
    placed = opensuse_tree(root, picture)
    list_directories(root)
    catalog = OpenSuse(base=server.url, keys=(pin(ours, "openSUSE", keyring),))
    with pytest.raises(SignatureInvalid, match="not found"):
        promise(catalog, "opensuse:16.0", ask)
    sums = root / placed.sums
    sums.with_name(f"{sums.name}.asc").write_bytes(gpg.detached(ours, sums.read_bytes(), "--armor"))
    _, digest, attested = promise(catalog, "opensuse:16.0", ask)
    assert digest == placed.digest
    assert (attested.verified, attested.signer) == (Verified.SIGNATURE, ours)
    sums.write_text(f"{'1' * 64}  {sums.name.removesuffix('.sha256')}\n")
    with pytest.raises(SignatureInvalid, match="differs from what"):
        promise(catalog, "opensuse:16.0", ask)


def test_ubuntus_other_trees(
    server: ImageServer, root: Path, picture: Path, gpg: Gpg, ours: str, keyring: Path,
    ask: Asking, tmp_path: Path,
) -> None:  # fmt: skip
    settings = Settings(
        mirrors={"ubuntu": f"{server.url}releases/"},
        web=ask.web,
        keys=ask.keys,
        pinned=(pin(ours, "Ubuntu", keyring),),
    )
    for tree, serial in (("releases", "20260911"), ("minimal/releases", "20260910")):
        ubuntu_tree(root / tree, picture, serial=serial)
        sign_tree(root / tree, gpg, ours, sums=False)
    for text, serial in (("ubuntu:24.04", "20260911"), ("ubuntu:lts@minimal", "20260910")):
        source = resolve(text, settings)
        assert (source.serial, source.verified, source.signer) == (
            serial, Verified.SIGNATURE, ours,
        )  # fmt: skip
        cache = Cache(tmp_path / "cache")
        assert obtain(source, cache=cache, progress=Quiet(), web=quick()).path.is_file()
    # A released tree in the daily one's place is another catalog, although it is signed.
    (root / "daily").symlink_to(root / "releases")
    with pytest.raises(SignatureInvalid, match="instead of"):
        resolve("ubuntu:24.04@daily", settings)


def own(tmp_path: Path, ask: Asking, text: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return replace(Settings.from_environ({}, files=[file], web=quick()), keys=ask.keys)


def checked(source: FromImage, signer: str) -> bool:
    return (source.verified, source.signer) == (Verified.SIGNATURE, signer)


def test_a_template_of_ones_own(
    server: ImageServer, root: Path, gpg: Gpg, ours: str, another: str, keyring: Path,
    ask: Asking, tmp_path: Path,
) -> None:  # fmt: skip
    (root / "1.sums").write_text(f"SHA256 (1.qcow2) = {'a' * 64}\n")
    (root / "1.sums.sig").write_bytes(gpg.detached(ours, (root / "1.sums").read_bytes()))
    (root / "1.clear").write_bytes(gpg.clear(ours, (root / "1.sums").read_bytes()))
    common = f'url = "{server.url}{{version}}.qcow2"\nkeyring = "{keyring}"\n'
    settings = own(
        tmp_path,
        ask,
        f"""
[images.detached]
checksums = "{server.url}{{version}}.sums"
signature = "{server.url}{{version}}.sums.sig"
fingerprint = "{ours}"
{common}
[images.inline]
checksums = "{server.url}{{version}}.clear"
signature = "clear"
fingerprint = ["{another}", "{ours}"]
{common}
[images.wrong]
checksums = "{server.url}{{version}}.clear"
signature = "clear"
fingerprint = "{another}"
{common}
""",
    )
    for name in ("detached", "inline"):
        source = resolve(f"{name}:1", settings)
        assert source.digest == f"sha256:{'a' * 64}"
        assert checked(source, ours)
    with pytest.raises(SignatureInvalid, match="not by"):
        resolve("wrong:1", settings)


def test_a_simplestreams_catalog_of_ones_own(
    server: ImageServer, root: Path, picture: Path, gpg: Gpg, ours: str, keyring: Path,
    ask: Asking, tmp_path: Path,
) -> None:  # fmt: skip
    published = ubuntu_tree(root, picture)
    settings = own(
        tmp_path,
        ask,
        f'[images.lab]\ntype = "simplestreams"\nurl = "{server.url}"\n'
        f'fingerprint = "{ours}"\nkeyring = "{keyring}"\n',
    )
    with pytest.raises(FetchFailed, match="404"):
        resolve("lab:lts", settings)
    sign_tree(root, gpg, ours, sums=False)
    source = resolve("lab:lts", settings)
    assert source.digest == f"sha256:{published.digest}"
    assert checked(source, ours)
    # What the unsigned document says of the digest is not enough.
    body = (root / f"{PRODUCTS}.json").read_bytes()
    forged = body.replace(published.digest.encode(), b"1" * 64)
    server.fault(f"{PRODUCTS}.json", Fault(body=forged))
    with pytest.raises(FetchFailed, match="different digests"):
        resolve("lab:lts", settings)
