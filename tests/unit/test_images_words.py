"""What messages about keys, catalogs and provenance say is true for each vendor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from armvm.base.errors import ArmvmError, ConfigError, NotVerified, SignatureInvalid
from armvm.base.progress import Quiet
from armvm.images.fetch.http_errors import CATALOG_HINT
from armvm.images.model import FromImage, Verified
from armvm.images.resolve import Settings, resolve
from armvm.images.trust.keyring import KeyStore
from armvm.images.trust.openpgp import Key
from armvm.images.trust.pinned import FEDORA, OPENSUSE, UBUNTU
from armvm.images.trust.provenance import require
from armvm.images.trust.statement import Statement, attest
from armvm.settings.catalogs import image_config
from armvm.settings.system import CODENAMES
from armvm.settings.urls import hidden, without_login
from armvm.settings.verify import Verify
from tests.image_server import Fault, ImageServer
from tests.images_tools import Heard, quick
from tests.openpgp_tools import Gpg

pytestmark = pytest.mark.unit

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImageServer]:
    (tmp_path / "www").mkdir()
    with ImageServer(tmp_path / "www") as running:
        yield running


def refusal(server: ImageServer, tmp_path: Path, key: Key, progress: Heard) -> ArmvmError:
    """Have a document attested whose key servers are out of reach; return the error."""
    statement = Statement(url=f"{server.url}d", signature=f"{server.url}d.sig", keys=(key,))
    store = KeyStore(directory=tmp_path / "keys", servers=(NOWHERE,), http_loopback=True)
    with pytest.raises(ArmvmError) as caught:
        attest(quick(), statement, policy=None, keys=store, progress=progress)
    assert caught.value.exit_code == 8
    return caught.value


def test_an_expired_key_names_the_file_the_server_and_the_cure(
    server: ImageServer, tmp_path: Path, gpg: Gpg
) -> None:
    then = "20200201T000000"
    old = gpg.key("Old", expires="2021-01-01", at="20200101T000000")
    (server.root / "d").write_bytes(b"digests")
    (server.root / "d.sig").write_bytes(gpg.detached(old, b"digests", at=then))
    file = tmp_path / "RPM-GPG-KEY-old"
    file.write_bytes(gpg.export(old))
    key = Key(fingerprint=old, owner="Old", keyrings=(str(file),), package="old-keys")
    error = refusal(server, tmp_path, key, Heard())
    assert isinstance(error, SignatureInvalid)
    assert "has expired" in error.message
    assert f"expired in {file}" in (error.detail or "")
    assert "cannot connect to 127.0.0.1:1" in (error.detail or "")
    for cure in ("package old-keys", "ARMVM_KEYSERVER", str(tmp_path / "keys"), "check the clock"):
        assert cure in (error.hint or "")


@pytest.mark.parametrize(
    ("key", "packages"),
    [
        (UBUNTU[0], ("ubuntu-cloudimage-keyring", "ubuntu-keyring on Debian 13", "Debian 12")),
        (FEDORA["44"], ("distribution-gpg-keys",)),
        (OPENSUSE[0], ("distribution-gpg-keys",)),
        (Key(fingerprint="A" * 40, owner="corp", own=True), ("set keyring = FILE in config.toml",)),
    ],
)
def test_a_key_that_cannot_be_had_names_the_vendors_package(
    server: ImageServer, tmp_path: Path, gpg: Gpg, ours: str, key: Key, packages: tuple[str, ...]
) -> None:
    (server.root / "d").write_bytes(b"digests")
    (server.root / "d.sig").write_bytes(gpg.detached(ours, b"digests"))
    key = Key(fingerprint=key.fingerprint, owner=key.owner, package=key.package, own=key.own)
    hint = refusal(server, tmp_path, key, Heard()).hint or ""
    assert all(package in hint for package in packages)
    assert ("ubuntu" in hint) == (key.fingerprint == UBUNTU[0].fingerprint)
    assert "ubuntu-cloud-keyring" not in hint


def test_a_keyring_of_ones_own_that_cannot_be_used_is_named(
    server: ImageServer, tmp_path: Path, gpg: Gpg, ours: str, another: str
) -> None:
    (server.root / "d").write_bytes(b"digests")
    (server.root / "d.sig").write_bytes(gpg.detached(ours, b"digests"))
    wrong, text = tmp_path / "wrong.gpg", tmp_path / "text.gpg"
    wrong.write_bytes(gpg.export(another))
    text.write_text("no key")
    for file, why in (
        (tmp_path / "missing.gpg", "No such file"),
        (wrong, "does not contain the key"),
        (text, "not a key file"),
        (tmp_path, "not a regular file"),
    ):
        progress = Heard()
        key = Key(fingerprint=ours, owner="corp", keyrings=(str(file),), own=True)
        refusal(server, tmp_path, key, progress)
        assert len(progress.warned) == 1
        assert f"keyring {str(file)!r}" in progress.warned[0] or str(file) in progress.warned[0]
        assert why in progress.warned[0]
    pinned = Key(fingerprint=ours, owner="Ubuntu", keyrings=(str(wrong),))
    progress = Heard()
    refusal(server, tmp_path, pinned, progress)
    assert progress.warned == [], "a system need not have a vendor's file"


def configured(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return Settings(own=image_config({}, [file]).own, web=quick())


def test_a_url_with_a_token(server: ImageServer, tmp_path: Path) -> None:
    settings = configured(
        tmp_path,
        f"""
        [images.corp]
        url = "{server.url}{{version}}.qcow2?token=s3cret&v={{version}}"
        checksums = "{server.url}SUMS?token=s3cret"
        """,
    )
    server.fault("SUMS", Fault(body=b"a" * 64 + b"  9.qcow2\n"))
    source = resolve("corp:9", settings)
    assert source.location == f"{server.url}9.qcow2?token=s3cret&v=9"
    assert source.digest == "sha256:" + "a" * 64
    server.fault("SUMS", Fault(status=404))
    with pytest.raises(ArmvmError) as caught:
        resolve("corp:9", settings)
    assert "s3cret" not in f"{caught.value.message} {caught.value.detail} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('type = "simplestreams"\nurl = "https://x/?token=s3cret"', "has a query"),
        ('url = "https://x/{version}#sha256=1"', "has a fragment"),
        ('url = "ftp://x/{version}?s3cret"', "is not an http"),
        ('url = "https://x/{version}"\ndistro = "Be OS"', "expected a word"),
    ],
)
def test_what_is_wrong_with_a_catalog_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, f"[images.a]\n{text}\n")
    assert why in caught.value.message
    assert "s3cret" not in caught.value.message


def test_tokens_are_not_shown() -> None:
    assert hidden("https://me:pw@x/y?token=s3cret") == "'x/y?…'" or "s3cret" not in hidden(
        "https://me:pw@x/y?token=s3cret"
    )
    assert without_login("https://me:pw@x/y?token=s3cret@z") == "https://x/y?…"


def test_images_of_any_distribution(tmp_path: Path) -> None:
    settings = configured(
        tmp_path, '[images.corp]\nurl = "https://x/{version}"\ndistro = "gentoo"\n'
    )
    system = resolve("corp:9", settings).system
    assert system is not None
    assert (system.distro, system.default_user) == ("gentoo", "armvm")


def test_hints_name_no_vendor_but_the_ones_own(tmp_path: Path) -> None:
    assert "ARMVM_MIRROR_DISTRO" in CATALOG_HINT
    with ImageServer(tmp_path) as empty:
        for name in ("debian:13", "fedora:43", "alpine:3.22", "opensuse:16.0"):
            wanted = Settings(mirrors={name.partition(":")[0]: empty.url}, web=quick())
            with pytest.raises(ArmvmError) as caught:
                resolve(name, wanted, progress=Quiet())
            assert "UBUNTU" not in f"{caught.value.message} {caught.value.hint}".upper()


def test_what_nothing_verifies_is_said_plainly() -> None:
    source = FromImage(reference="corp:9", location="x", verified=Verified.NOTHING)
    with pytest.raises(NotVerified) as caught:
        require(source, Verify.DIGEST)
    assert caught.value.message == "corp:9 is verified by nothing, but verify = digest is required"


def test_ubuntus_next_release_is_known_offline() -> None:
    assert CODENAMES["ubuntu"]["stonking"] == "26.10"


def test_fedoras_next_releases_are_pinned() -> None:
    assert FEDORA["46"].fingerprint == "D924B10D3E810DABDD8B56B596E7E91491211FCE"
    assert FEDORA["47"].fingerprint == "B2E766FA50CA6FA2D5ED06FC09D879E09488FB64"
