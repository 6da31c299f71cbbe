"""The chain from a pinned key to an image, over real HTTP: each way it can break is an error of
its own, and leaves nothing in the cache."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base.errors import (
    ArmvmError,
    ConfigError,
    DigestMismatch,
    FetchFailed,
    ImageError,
    NotVerified,
    SignatureInvalid,
    Unreachable,
)
from armvm.base.progress import Quiet
from armvm.images.cache import entry as entries
from armvm.images.cache.store import Cache
from armvm.images.model import Image, Verified
from armvm.images.resolve import Settings, obtain, resolve
from armvm.images.trust.checksums import digests
from armvm.images.trust.keyring import SERVERS, KeyStore
from armvm.images.trust.pinned import ALL, UBUNTU, grouped
from armvm.images.trust.provenance import of_record, words
from armvm.images.trust.statement import Attested, Statement, attest
from armvm.settings.verify import Verify, policy
from tests.image_server import PRODUCTS, Fault, ImageServer, Published, ubuntu_tree
from tests.images_tools import Heard, leftovers, qcow2_image, quick
from tests.openpgp_tools import Gpg, pin, serve_keys, sign_tree

pytestmark = pytest.mark.unit

INDEX = "streams/v1/index.sjson"
SIGNED = PRODUCTS.removesuffix(".json") + ".sjson"


@pytest.fixture(scope="module")
def ours(gpg: Gpg) -> str:
    return gpg.key("Ubuntu")


@pytest.fixture(scope="module")
def another(gpg: Gpg) -> str:
    return gpg.key("Mallory")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qcow2_image(tmp_path_factory.mktemp("image") / "disk.img", payload=300_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "www"
    path.mkdir()
    return path


@pytest.fixture
def published(root: Path, picture: Path, gpg: Gpg, ours: str) -> Published:
    published = ubuntu_tree(root, picture)
    sign_tree(root, gpg, ours)
    serve_keys(root, gpg.export(ours, armor=True))
    return published


@pytest.fixture
def server(root: Path, published: Published) -> Iterator[ImageServer]:
    with ImageServer(root) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def store(tmp_path: Path, server: ImageServer) -> KeyStore:
    return KeyStore(directory=tmp_path / "keys", servers=(server.url,), http_loopback=True)


@pytest.fixture
def settings(server: ImageServer, store: KeyStore, ours: str) -> Settings:
    return Settings(mirrors={"ubuntu": server.url}, web=quick(), keys=store, pinned=(pin(ours),))


def pull(settings: Settings, cache: Cache, progress: Heard | None = None) -> Image:
    news = progress or Heard()
    source = resolve("ubuntu:24.04", settings, cache=cache, progress=news)
    return obtain(source, cache=cache, progress=news, web=settings.web)


def fails(settings: Settings, cache: Cache) -> ArmvmError:
    """Pull, expect an error with exit code 8 and a hint, and see that nothing is left."""
    with pytest.raises(ImageError) as caught:
        pull(settings, cache)
    assert not cache.root.exists() or leftovers(cache.root) == []
    assert caught.value.exit_code == 8
    assert caught.value.hint
    return caught.value


def refused(settings: Settings, cache: Cache, message: str) -> ArmvmError:
    error = fails(settings, cache)
    assert isinstance(error, SignatureInvalid), error
    assert message in error.message
    return error


# ---- the good way ---------------------------------------------------------------------------


def test_a_signed_catalog(
    settings: Settings, server: ImageServer, cache: Cache, published: Published, ours: str
) -> None:
    progress = Heard()
    image = pull(settings, cache, progress)
    assert image.digest == f"sha256:{published.digest}"
    assert (image.source.verified, image.source.signer) == (Verified.SIGNATURE, ours)
    assert progress.warned == []
    assert f"stored the key of Ubuntu ({grouped(ours)})" in progress.said[0]
    assert server.requests[:3] == [INDEX, "pks/lookup", SIGNED]
    (found,) = cache.entries()
    assert (found.verified, found.signer) == (Verified.SIGNATURE, ours)


def test_the_key_is_fetched_once_and_kept_private(
    settings: Settings, server: ImageServer, cache: Cache, ours: str
) -> None:
    pull(settings, cache)
    pull(settings, cache)
    assert server.count("pks/lookup") == 1
    file = settings.keys.directory / f"{ours}.pgp"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0


def test_a_key_of_the_system_needs_no_key_server(
    settings: Settings, server: ImageServer, cache: Cache, gpg: Gpg, ours: str, tmp_path: Path
) -> None:
    keyring = tmp_path / "ubuntu-cloudimage-keyring.gpg"
    keyring.write_bytes(gpg.export())  # with all keys of this test in it
    pinned = (pin(ours, "Ubuntu", tmp_path / "none.gpg", tmp_path, keyring),)
    image = pull(replace(settings, pinned=pinned), cache)
    assert image.source.signer == ours
    assert server.count("pks/lookup") == 0
    assert not settings.keys.directory.exists()


def test_a_mirror_with_checksum_files_only(
    settings: Settings, server: ImageServer, root: Path, cache: Cache, ours: str
) -> None:
    for name in (INDEX, SIGNED):
        (root / name).unlink()
    progress = Heard()
    image = pull(settings, cache, progress)
    assert (image.source.verified, image.source.signer) == (Verified.SIGNATURE, ours)
    assert progress.warned == []
    assert any(path.endswith("SHA256SUMS.gpg") for path in server.requests)


def test_the_second_of_two_pinned_keys(
    settings: Settings, cache: Cache, ours: str, another: str
) -> None:
    pinned = (pin(another, "the older"), pin(ours, "the newer"))
    image = pull(replace(settings, pinned=pinned), cache)
    assert image.source.signer == ours


def test_a_key_on_disk_and_no_key_server(
    settings: Settings, server: ImageServer, cache: Cache
) -> None:
    pull(settings, cache)
    server.fault("pks/lookup", Fault(status=500))
    away = replace(settings.keys, servers=("http://127.0.0.1:1",))
    assert pull(replace(settings, keys=away), cache).source.verified is Verified.SIGNATURE
    assert server.count("pks/lookup") == 1


# ---- what breaks it -------------------------------------------------------------------------


def test_a_tampered_image(
    settings: Settings, server: ImageServer, published: Published, cache: Cache
) -> None:
    body = bytearray((server.root / published.path).read_bytes())
    body[-1] ^= 1
    server.fault(published.path, Fault(body=bytes(body)))
    assert isinstance(fails(settings, cache), DigestMismatch)


@pytest.mark.parametrize("path", [INDEX, SIGNED])
def test_a_tampered_catalog(
    settings: Settings, server: ImageServer, cache: Cache, path: str
) -> None:
    body = (server.root / path).read_bytes()
    server.fault(path, Fault(body=body.replace(b"20260911", b"20260912").replace(b"Sep", b"Oct")))
    error = refused(settings, cache, "differs from what Ubuntu signed")
    assert path in error.message


def without_streams(server: ImageServer) -> str:
    """Take the signed streams away; return the path of the checksum file."""
    for path in (INDEX, SIGNED):
        (server.root / path).unlink()
    (sums,) = server.root.rglob("SHA256SUMS")
    return str(sums.relative_to(server.root))


def test_tampered_checksums(settings: Settings, server: ImageServer, cache: Cache) -> None:
    path = without_streams(server)
    body = (server.root / path).read_bytes()
    server.fault(path, Fault(body=body.replace(body[:4], b"0000", 1)))
    refused(settings, cache, "SHA256SUMS differs from what Ubuntu signed")


def test_a_catalog_that_contradicts_the_checksums(
    settings: Settings, server: ImageServer, cache: Cache, published: Published
) -> None:
    without_streams(server)
    body = (server.root / PRODUCTS).read_bytes()
    server.fault(PRODUCTS, Fault(body=body.replace(published.digest.encode(), b"0" * 64)))
    refused(settings, cache, "differ")


def test_a_catalog_that_passes_another_image_off(
    settings: Settings, server: ImageServer, cache: Cache, picture: Path, gpg: Gpg, ours: str
) -> None:
    """SHA256SUMS of an old release is signed too; an unsigned catalog could name it as 24.04."""
    old = ubuntu_tree(server.root, picture, version="20.04", serial="20200423")
    sign_tree(server.root, gpg, ours)
    path = next(p for p in server.root.rglob("SHA256SUMS") if "noble" in str(p))
    path.unlink()
    for name in (INDEX, SIGNED):
        (server.root / name).unlink()
    document = json.loads((server.root / PRODUCTS).read_text())
    product = document["products"]["com.ubuntu.cloud:server:24.04:arm64"]
    product["versions"]["20260911"]["items"]["disk1.img"]["path"] = old.path
    server.fault(PRODUCTS, Fault(body=json.dumps(document).encode()))
    refused(settings, cache, "is not an image of 24.04")


def test_a_signed_catalog_of_another_stream(
    settings: Settings, server: ImageServer, cache: Cache, gpg: Gpg, ours: str
) -> None:
    text = (server.root / PRODUCTS).read_text().replace(":released:", ":daily:")
    server.fault(SIGNED, Fault(body=gpg.clear(ours, text.encode())))
    refused(settings, cache, "instead of")


def test_a_signature_by_another_key(
    settings: Settings, server: ImageServer, cache: Cache, gpg: Gpg, another: str
) -> None:
    sign_tree(server.root, gpg, another)
    error = refused(settings, cache, "is signed, but not by Ubuntu")
    assert another in (error.detail or "")
    # Also where the key server has that key.
    serve_keys(server.root, gpg.export())
    refused(settings, cache, "is signed, but not by Ubuntu")
    without_streams(server)
    refused(settings, cache, "is signed, but not by Ubuntu")


def test_an_expired_key(settings: Settings, server: ImageServer, cache: Cache, gpg: Gpg) -> None:
    expired = gpg.key("Expired", expires="2021-01-01", at="20200101T000000")
    then = "20200601T000000"
    sign_tree(server.root, gpg, expired, streams=False, sums=False)
    for name in (INDEX, SIGNED):
        text = (server.root / name.replace(".sjson", ".json")).read_bytes()
        (server.root / name).write_bytes(gpg.clear(expired, text, at=then))
    serve_keys(server.root, gpg.export(expired))
    settings = replace(settings, pinned=(pin(expired, "Ubuntu of old"),))
    refused(settings, cache, "the key of Ubuntu of old")
    assert "has expired" in fails(settings, cache).message
    # Its owner extends it: the key server has the new certificate, and the old one is replaced.
    gpg.run("--quick-set-expire", expired, "0", at="20200701T000000")
    serve_keys(server.root, gpg.export(expired))
    assert pull(settings, cache).source.signer == expired
    before = server.count("pks/lookup")
    pull(settings, cache)
    assert server.count("pks/lookup") == before


def test_an_expired_key_of_the_system_does_not_hide_a_newer_copy(
    settings: Settings, server: ImageServer, cache: Cache, gpg: Gpg, tmp_path: Path
) -> None:
    renewed = gpg.key("Renewed", expires="2021-01-01", at="20200101T000000")
    keyring = tmp_path / "system.gpg"
    keyring.write_bytes(gpg.export(renewed))
    gpg.run("--quick-set-expire", renewed, "0", at="20200701T000000")
    sign_tree(server.root, gpg, renewed)
    serve_keys(server.root, gpg.export(renewed))
    settings = replace(settings, pinned=(pin(renewed, "Ubuntu", keyring),))
    for _ in range(3):
        assert pull(settings, cache).source.signer == renewed
    assert server.count("pks/lookup") == 1


def test_a_revoked_key(settings: Settings, server: ImageServer, cache: Cache, gpg: Gpg) -> None:
    lost = gpg.key("Lost")
    sign_tree(server.root, gpg, lost)
    gpg.revoke(lost)
    serve_keys(server.root, gpg.export(lost))
    refused(replace(settings, pinned=(pin(lost),)), cache, "is revoked")


def test_a_missing_signature(settings: Settings, server: ImageServer, cache: Cache) -> None:
    (sums,) = (str(p.relative_to(server.root)) for p in server.root.rglob("SHA256SUMS"))
    # Not signed where a signed file should be: no way round.
    server.fault(INDEX, Fault(body=(server.root / "streams/v1/index.json").read_bytes()))
    refused(settings, cache, "index.sjson is not signed")
    server.mend()
    without_streams(server)
    server.fault(f"{sums}.gpg", Fault(status=404))
    error = refused(settings, cache, "SHA256SUMS not found")
    assert "404" in error.message
    assert "--verify digest" in (error.hint or "")
    server.fault(sums, Fault(status=404))
    error = refused(settings, cache, "image signature")
    assert "index.sjson" in (error.detail or "")


NOISE = random.Random(0).randbytes(500)


@pytest.mark.parametrize("body", [b"", b"a login page", b"\x88\x05hello", NOISE])
def test_an_unreadable_signature(
    settings: Settings, server: ImageServer, cache: Cache, body: bytes
) -> None:
    server.fault(f"{without_streams(server)}.gpg", Fault(body=body))
    refused(settings, cache, "cannot read the signature")


# ---- keys -----------------------------------------------------------------------------------


def test_a_key_server_with_another_key(
    settings: Settings, server: ImageServer, cache: Cache, gpg: Gpg, another: str
) -> None:
    serve_keys(server.root, gpg.export(another))
    error = refused(settings, cache, "answered with another key")
    assert grouped(another) in (error.detail or "")
    assert not settings.keys.directory.exists()


def test_a_key_server_that_has_none(settings: Settings, server: ImageServer, cache: Cache) -> None:
    server.fault("pks/lookup", Fault(status=404))
    assert "404" in refused(settings, cache, "cannot get the key of Ubuntu").message
    server.fault("pks/lookup", Fault(body=b"no results"))
    assert "answered without a key" in fails(settings, cache).message
    server.fault("pks/lookup", Fault(body=bytes((4 << 20) + 1)))
    assert "larger than" in fails(settings, cache).message


def test_no_key_server_in_reach(settings: Settings, server: ImageServer, cache: Cache) -> None:
    away = replace(settings.keys, servers=("http://127.0.0.1:1", "http://127.0.0.1:2"))
    error = fails(replace(settings, keys=away), cache)
    assert type(error) is Unreachable
    assert "cannot get the key of Ubuntu" in error.message
    assert "ARMVM_KEYSERVER" in (error.hint or "")
    # The second of two is asked where the first does not answer.
    both = replace(settings.keys, servers=("http://127.0.0.1:1", server.url))
    pull(replace(settings, keys=both), cache)


def test_a_kept_key_is_held_against_its_fingerprint_again(
    settings: Settings, server: ImageServer, cache: Cache, gpg: Gpg, ours: str, another: str
) -> None:
    pull(settings, cache)
    file = settings.keys.directory / f"{ours}.pgp"
    for damage in (b"", b"junk", gpg.export(another), file.read_bytes()[:40]):
        file.write_bytes(damage)
        pull(settings, cache)
        assert gpg.export(ours) == file.read_bytes()
    assert server.count("pks/lookup") == 5


def test_a_key_that_cannot_be_kept_serves_once(
    settings: Settings, cache: Cache, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    keys = replace(settings.keys, directory=tmp_path / "file" / "keys")
    progress = Heard()
    assert pull(replace(settings, keys=keys), cache, progress).source.signer
    assert "cannot store the key" in progress.warned[0]


@pytest.mark.parametrize(
    "name", ["http://keys.example", "hkp://x", "https://", "keys.example", "https://a/?b", "x y"]
)
def test_key_servers_that_are_not_asked(
    settings: Settings, cache: Cache, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="ARMVM_KEYSERVER"):
        KeyStore.default({"ARMVM_KEYSERVER": name})
    config = tmp_path / "config.toml"
    config.write_text(f'keyserver = ["{name}"]\n')
    with pytest.raises(ConfigError, match=r"config\.toml"):
        KeyStore.default({}, [config])
    store = replace(settings.keys, servers=(name,))
    with pytest.raises(ConfigError, match="key server"):
        pull(replace(settings, keys=store), cache)


def test_http_is_for_loopback_alone_and_only_where_it_is_allowed(
    settings: Settings, cache: Cache
) -> None:
    with pytest.raises(ConfigError):
        pull(replace(settings, keys=replace(settings.keys, http_loopback=False)), cache)
    assert not KeyStore.default({}).http_loopback


def test_key_servers_that_are_named(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('keyserver = "https://a.example"\n[machine]\ncpus = 2\n')
    assert KeyStore.default({}).servers == SERVERS
    assert KeyStore.default({}, [config]).servers == ("https://a.example",)
    environ = {"ARMVM_KEYSERVER": "https://b.example https://c.example:444/"}
    named = ("https://b.example", "https://c.example:444/")
    assert KeyStore.default(environ, [config]).servers == named
    config.write_text("keyserver = 3\n")
    with pytest.raises(ConfigError, match="URL"):
        KeyStore.default({}, [config])


def test_the_pinned_keys() -> None:
    assert len({key.fingerprint for key in ALL}) == len(ALL)
    for key in ALL:
        assert grouped(key.fingerprint) != "?"
    assert {key.fingerprint for key in UBUNTU} == {
        "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81",
        "4A3CE3CD565D7EB5C810E2B97FF3F408476CF100",
    }
    assert Settings.from_environ({}).pinned == UBUNTU


# ---- weaker policies ------------------------------------------------------------------------


def test_less_is_asked_for(settings: Settings, server: ImageServer, cache: Cache) -> None:
    without_streams(server)
    progress = Heard()
    image = pull(replace(settings, verify=Verify.DIGEST), cache, progress)
    assert (image.source.verified, image.source.signer) == (Verified.CATALOG, None)
    (warning,) = progress.warned
    assert "the signature is not checked (verify = digest)" in warning
    assert not any("gpg" in path or "pks" in path for path in server.requests)


def test_nothing_is_asked_for(
    settings: Settings, server: ImageServer, cache: Cache, published: Published
) -> None:
    body = (server.root / PRODUCTS).read_bytes()
    server.fault(PRODUCTS, Fault(body=body.replace(published.digest.encode(), b"0" * 64)))
    progress = Heard()
    image = pull(replace(settings, verify=Verify.NONE), cache, progress)
    assert image.source.verified is Verified.NOTHING
    assert image.digest == f"sha256:{published.digest}"
    assert "not verified" in progress.warned[0]
    server.mend()
    body = (server.root / PRODUCTS).read_bytes()
    other = Cache(cache.root.parent / "other")
    server.fault(PRODUCTS, Fault(body=body.replace(published.digest.encode(), b"0" * 64)))
    assert isinstance(fails(replace(settings, verify=Verify.DIGEST), other), DigestMismatch)


def test_a_cached_image_is_attested_again(
    settings: Settings, server: ImageServer, cache: Cache, published: Published, ours: str
) -> None:
    pull(replace(settings, verify=Verify.DIGEST), cache)
    (before,) = cache.entries()
    assert before.verified is Verified.CATALOG
    # Out of reach: what was taken by digest is not enough.
    down = replace(settings, mirrors={"ubuntu": "http://127.0.0.1:1/"})
    with pytest.raises(Unreachable):
        pull(down, cache)
    assert pull(replace(down, verify=Verify.DIGEST), cache).source.verified is Verified.CATALOG
    # In reach: not fetched again, but its digest is signed now, and that is remembered.
    image = pull(settings, cache)
    assert (image.source.verified, image.source.signer) == (Verified.SIGNATURE, ours)
    assert server.count(published.path) == 1
    (after,) = cache.entries()
    assert (after.verified, after.signer) == (Verified.SIGNATURE, ours)
    assert pull(down, cache).source.signer == ours
    # And not forgotten when less is asked for.
    pull(replace(settings, verify=Verify.DIGEST), cache)
    assert cache.entries()[0].verified is Verified.SIGNATURE


def test_a_sidecar_of_before_has_no_signer(settings: Settings, cache: Cache) -> None:
    image = pull(replace(settings, verify=Verify.DIGEST), cache)
    sidecar = image.path.with_suffix(".json")
    document = json.loads(sidecar.read_text())
    del document["signer"]
    sidecar.write_text(json.dumps(document))
    assert entries.load(image.path).problem is None


def test_urls_and_the_policy(
    settings: Settings, server: ImageServer, published: Published, cache: Cache
) -> None:
    bare = f"{server.url}{published.path}"
    for asked in (Verify.SIGNATURE, Verify.DIGEST):
        with pytest.raises(NotVerified, match=f"verify = {asked.value}"):
            resolve(bare, replace(settings, verify=asked))
        given = resolve(f"{bare}#sha256={published.digest}", replace(settings, verify=asked))
        assert given.verified is Verified.GIVEN
    for relaxed in (None, Verify.NONE):
        assert resolve(bare, replace(settings, verify=relaxed)).verified is Verified.NOTHING
    # A file of the user's own is not fetched.
    assert resolve(str(server.root / published.path), replace(settings, verify=Verify.SIGNATURE))


# ---- statements of other kinds --------------------------------------------------------------


def attested(
    settings: Settings, statement: Statement, asked: Verify | None = None
) -> tuple[Attested, Heard]:
    news = Heard()
    found = attest(settings.web, statement, policy=asked, keys=settings.keys, progress=news)
    return found, news


def test_a_clear_signed_checksum_file_as_fedora_has(
    settings: Settings, server: ImageServer, gpg: Gpg, ours: str
) -> None:
    name = "Fedora-Cloud-Base-Generic-43-1.6.aarch64.qcow2"
    text = f"# {name}: 123 bytes\nSHA256 ({name}) = {'ab' * 32}\n".encode()
    (server.root / "CHECKSUM").write_bytes(gpg.clear(ours, text))
    statement = Statement(url=f"{server.url}CHECKSUM", clear=True, keys=(pin(ours),))
    for asked, verified in ((None, Verified.SIGNATURE), (Verify.DIGEST, Verified.CATALOG)):
        found, _ = attested(settings, statement, asked)
        assert found.verified is verified
        assert digests(found.document) == {name: "sha256:" + "ab" * 32}


def test_a_source_that_does_not_sign(settings: Settings, server: ImageServer) -> None:
    (server.root / "SHA512SUMS").write_text(f"{'cd' * 64}  debian-12-genericcloud-arm64.qcow2\n")
    statement = Statement(url=f"{server.url}SHA512SUMS")
    found, news = attested(settings, statement)
    assert (found.verified, found.signer, news.warned) == (Verified.CATALOG, None, [])
    with pytest.raises(NotVerified, match="not signed by its distribution"):
        attested(settings, statement, Verify.SIGNATURE)


def test_checksum_files() -> None:
    two, five = "ab" * 32, "cd" * 64
    text = (
        f"{two} *a.img\n{two.upper()}  b c.img\n{five}  a.img\nSHA512 (d.img) = {five}\n"
        f"SHA256(e.img)= {two}\n# comment\n{'0' * 32}  md5.img\n{two}  ../x\n{two}  x/y\n"
        f"\\{two}  esc\\\\aped\n{two}  ./dot.img\nSHA256 (short) = {two[:-2]}\r\n{two}  cr.img\r\n"
    )
    assert digests(text.encode()) == {
        "a.img": f"sha256:{two}",
        "b c.img": f"sha256:{two}",
        "d.img": f"sha512:{five}",
        "e.img": f"sha256:{two}",
        "dot.img": f"sha256:{two}",
        "cr.img": f"sha256:{two}",
    }
    assert digests(five.encode()) == {"": f"sha512:{five}"}
    assert digests(f"{two}  x.qcow2".encode()) == {"x.qcow2": f"sha256:{two}"}
    for wrong in (b"", b"<html>", bytes(100), f"{two}  \x1b[31m\n".encode()):
        with pytest.raises(FetchFailed, match="no digest"):
            digests(wrong)
    with pytest.raises(FetchFailed, match="two digests"):
        digests(f"{two}  a\n{'0' * 64}  a\n".encode())


def test_checksum_files_of_noise() -> None:
    for seed in range(300):
        noise = b"".join(hashlib.sha512(bytes([seed % 256, i])).digest() for i in range(9))
        with pytest.raises(FetchFailed):
            digests(noise)


# ---- words ----------------------------------------------------------------------------------


def test_provenance_in_words() -> None:
    key = "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"
    assert of_record({"verified": "signature", "signer": key}) == (
        "the signature of Ubuntu's UEC Image Automatic Signing Key "
        "(D2EB 4462 6FDD C30B 513D 5BB7 1A5D 6C4C 7DB8 7C81)"
    )
    for odd in ({}, {"verified": "x\x1b"}, {"verified": "signature", "signer": "\x1b[31m"}):
        assert of_record(odd).isprintable()
    assert words("signature", "A" * 40) == f"the signature of key {grouped('A' * 40)}"
    assert len({words(one.value) for one in Verified}) == len(Verified)


# ---- the setting ----------------------------------------------------------------------------


def test_where_the_policy_comes_from(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine.toml", tmp_path / "theirs.toml"
    theirs.write_text('verify = "none"\nwarm = "never"\n')
    assert policy(None, {}, [mine]) is None
    assert policy(None, {}, [mine, theirs]) is Verify.NONE
    mine.write_text('verify = "digest"\n[machine]\ncpus = 3\n')
    assert policy(None, {}, [mine, theirs]) is Verify.DIGEST
    assert policy(None, {"ARMVM_VERIFY": "none"}, [mine]) is Verify.NONE
    assert policy("signature", {"ARMVM_VERIFY": "none"}, [mine]) is Verify.SIGNATURE
    for asked, environ in (("maybe", {}), (None, {"ARMVM_VERIFY": "Digest"}), ("", {})):
        with pytest.raises(ConfigError, match="invalid verify value"):
            policy(asked, environ, [])
    mine.write_text("verify = true\n")
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        policy(None, {}, [mine])


def test_progress_may_be_quiet(settings: Settings, cache: Cache) -> None:
    assert resolve("ubuntu:24.04", settings, progress=Quiet()).verified is Verified.SIGNATURE
