"""Custom mirrors and catalogs, from environment and config.toml to the image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from armvm.base.errors import ConfigError, FetchFailed, NotFound, NotVerified, PermissionDenied
from armvm.base.progress import Quiet
from armvm.images.cache.store import Cache
from armvm.images.distros.catalog import Asking
from armvm.images.distros.template import keys_of
from armvm.images.model import Verified
from armvm.images.reference import CatalogReference, parse
from armvm.images.resolve import Settings, obtain, resolve
from armvm.settings.catalogs import image_config
from armvm.settings.config_file import file_layer
from armvm.settings.system import OperatingSystem
from armvm.settings.verify import Verify
from tests.image_server import ImageServer, ubuntu_tree
from tests.images_tools import Heard, qcow2_image, quick

pytestmark = pytest.mark.unit

FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def server(root: Path) -> Iterator[ImageServer]:
    with ImageServer(root) as running:
        yield running


def configured(tmp_path: Path, text: str, **environ: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return Settings.from_environ(environ, files=[file], web=quick())


def test_a_template_with_checksums(server: ImageServer, root: Path, tmp_path: Path) -> None:
    image = qcow2_image(tmp_path / "image.qcow2", payload=1 << 20)
    folder = root / "2026.1"
    folder.mkdir()
    (folder / "corp-2026.1-arm64.qcow2").write_bytes(image.read_bytes())
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest} *corp-2026.1-arm64.qcow2\n")
    settings = configured(
        tmp_path,
        f"""
        [images.corp]
        url = "{server.url}{{version}}/corp-{{version}}-{{arch}}.qcow2"
        checksums = "{server.url}{{version}}/SHA256SUMS"
        distro = "fedora"
        versions = ["2026.1", "2026.2"]
        """,
    )
    source = resolve("corp:2026.1", settings)
    assert source.digest == f"sha256:{digest}"
    assert source.verified is Verified.CATALOG
    assert source.system == OperatingSystem(distro="fedora", version="2026.1")
    cache = Cache(tmp_path / "cache")
    path = obtain(source, cache=cache, progress=Quiet(), web=quick()).path
    assert path.read_bytes() == image.read_bytes()
    with pytest.raises(NotFound) as caught:
        resolve("corp:2025.9", settings)
    assert "corp:2026.1" in (caught.value.hint or "")
    with pytest.raises(FetchFailed, match="404"):
        resolve("corp:2026.2", settings)
    for text in ("corp:2026.1/1", "corp:2026.1@big"):
        with pytest.raises(ConfigError):
            resolve(text, settings)
    offers = settings.catalogs()["corp"].releases(settings.asking(Quiet()))
    assert [one.reference for one in offers] == ["corp:2026.1", "corp:2026.2"]


def test_a_template_with_all_placeholders(tmp_path: Path) -> None:
    settings = configured(
        tmp_path,
        """
        [images.corp]
        url = "https://images.example.org/{variant}/{version}/{serial}/disk.raw"
        """,
    )
    progress = Heard()
    source = resolve("corp:9/20260911@big", settings, progress=progress)
    assert source.location == "https://images.example.org/big/9/20260911/disk.raw"
    assert source.reference == "corp:9/20260911@big"
    assert (source.digest, source.verified) == (None, Verified.NOTHING)
    assert "cannot be verified" in progress.warned[0]
    assert source.system and source.system.default_user == "armvm"
    for text in ("corp:9", "corp:9/20260911", "corp:9@big"):
        with pytest.raises(ConfigError, match="for each"):
            resolve(text, settings)
    for policy in (Verify.SIGNATURE, Verify.DIGEST):
        strict = Settings(own=settings.own, web=quick(), verify=policy)
        with pytest.raises(NotVerified, match="verified by nothing"):
            resolve("corp:9/20260911@big", strict)


def test_who_signs_a_template(tmp_path: Path) -> None:
    own = image_config(
        {},
        [
            written(
                tmp_path,
                f"""
                [images.corp]
                url = "https://h.example/{{version}}.qcow2"
                checksums = "https://h.example/{{version}}.sums"
                signature = "https://h.example/{{version}}.sums.asc"
                fingerprint = ["{FINGERPRINT.lower()}", "AB {"0" * 38}"]
                keyring = "/etc/corp.gpg"
                [images.clear]
                url = "https://h.example/{{version}}.qcow2"
                checksums = "https://h.example/{{version}}.sums"
                signature = "clear"
                fingerprint = "{FINGERPRINT}"
                """,
            )
        ],
    ).own
    assert [key.fingerprint for key in keys_of(own[0])] == [FINGERPRINT, f"AB{'0' * 38}"]
    assert keys_of(own[0])[0].keyrings == ("/etc/corp.gpg",)
    found = []
    for one in Settings(own=own).catalogs().values():
        if one.name in ("corp", "clear"):
            reference = parse(f"{one.name}:1", catalogs=[one.name])
            assert isinstance(reference, CatalogReference)
            found.append(one.find(reference, Asking(web=quick())).statement)
    detached, clear = found
    assert detached and detached.signature == "https://h.example/1.sums.asc" and not detached.clear
    assert clear and clear.signature is None and clear.clear and clear.keys


def test_a_simplestreams_catalog(server: ImageServer, root: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"an image")
    published = ubuntu_tree(root, image)
    settings = configured(tmp_path, f'[images.lab]\ntype = "simplestreams"\nurl = "{server.url}"\n')
    source = resolve("lab:lts", settings)
    assert source.reference == "lab:24.04"
    assert source.digest == f"sha256:{published.digest}"
    assert source.verified is Verified.CATALOG
    # Nobody signs it: the catalog's own word is all there is.
    assert not any("SHA256SUMS" in path for path in server.requests)


def test_mirrors_of_all_distributions_by_one_rule(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        warm = "never"
        [machine]
        cpus = 4
        [mirrors]
        debian = "https://mirror.example/debian-cloud"
        fedora = "http://mirror.example:8080/fedora/linux/"
        """,
    )
    system = tmp_path / "system.toml"
    system.write_text(
        '[mirrors]\nfedora = "https://other.example/"\nalpine = "https://a.example"\n'
    )
    environ = {
        "ARMVM_MIRROR_DEBIAN": "https://given.example/x/",
        "ARMVM_MIRROR_OPENSUSE": " https://suse.example ",
        "ARMVM_MIRROR_UBUNTU": "",
    }
    config = image_config(environ, [file, system, tmp_path / "missing.toml"])
    assert config.mirrors == {
        "debian": "https://given.example/x/",
        "opensuse": "https://suse.example/",
        "fedora": "http://mirror.example:8080/fedora/linux/",
        "alpine": "https://a.example/",
    }
    # The tables do not disturb what else is in the file.
    assert file_layer(file).values == {"cpus": 4}


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[mirrors]\nplan9 = "https://x/"', ": [mirrors] plan9"),
        ("[mirrors]\n\nubuntu = 3", ": [mirrors] ubuntu"),
        ('[mirrors]\nubuntu = "ftp://x/"', ": [mirrors] ubuntu"),
        ('[mirrors]\nubuntu = "https://x/?token=1"', ": [mirrors] ubuntu"),
        ('mirrors = "https://x/"', ": [mirrors]: expected a table"),
        ("images = 3", ": [images]: expected a table"),
        ("[images]\nx = 3", "[images.x]: expected a table"),
        ('[images.ubuntu]\nurl = "https://x/"', ": [images.ubuntu]"),
        ('[images.https]\nurl = "https://x/"', ": [images.https]"),
        ('[images."a b"]\nurl = "https://x/"', ": [images.a b]"),
        ("[images.a]\ntype = 'x'", ": [images.a] type"),
        ("[images.a]\ntype = []", ": [images.a] type"),
        ("[images.a]", ": [images.a]: url is required"),
        ('[images.a]\nurl = "x"', ": [images.a] url"),
        ('[images.a]\nurl = "file:///{version}"', ": [images.a] url"),
        ('[images.a]\nurl = "https://{version}/x"', ": [images.a] url"),
        ('[images.a]\nurl = "https://x/a.img"', "{version} is required"),
        ('[images.a]\nurl = "https://x/{version"', "braces hold"),
        ('[images.a]\nurl = "https://x/{version.__class__}"', "braces hold"),
        ('[images.a]\nurl = "https://x/{0}{version}"', "braces hold"),
        ('[images.a]\nurl = "https://x/{version}"\nsize = 3', ": [images.a] size"),
        ('[images.a]\nurl = "https://x/{version}"\nchecksums = 3', ": [images.a] checksums"),
        ('[images.a]\nurl = "https://x/{version}"\nversions = [".."]', ": [images.a] versions"),
        ('[images.a]\nurl = "https://x/{version}"\ndistro = "Be OS"', ": [images.a] distro"),
        (
            f'[images.a]\nurl = "https://x/{{version}}"\nfingerprint = "{FINGERPRINT}"',
            ": [images.a] fingerprint: requires signature",
        ),
        (
            '[images.a]\nurl = "https://x/{version}"\nfingerprint = "0x1234"',
            ": [images.a] fingerprint: expected 40",
        ),
        (
            '[images.a]\nurl = "https://x/{version}"\nsignature = "clear"',
            ": [images.a] signature: requires checksums",
        ),
        ('[images.a]\ntype = "simplestreams"\nurl = "x"', ": [images.a] url"),
        (
            '[images.a]\ntype = "simplestreams"\nurl = "https://x/"\nchecksums = "https://x/s"',
            ": [images.a] checksums",
        ),
        ("[images.a\n", "line 1"),
    ],
)
def test_errors_say_where(tmp_path: Path, text: str, where: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        image_config({}, [file])
    assert caught.value.message.startswith(str(file))
    assert where in caught.value.message
    assert caught.value.message.isprintable()


def test_a_password_in_a_url_is_not_told(tmp_path: Path) -> None:
    for text in (
        '[mirrors]\nubuntu = "ftp://me:s3cret@x/"',
        '[images.a]\nurl = "ftp://me:s3cret@x/{version}"',
    ):
        with pytest.raises(ConfigError) as caught:
            image_config({}, [written(tmp_path, text)])
        assert "s3cret" not in caught.value.message
    with pytest.raises(ConfigError) as caught:
        image_config({"ARMVM_MIRROR_FEDORA": "ftp://me:s3cret@x/"})
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"
    assert "ARMVM_MIRROR_FEDORA" in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        image_config({}, [tmp_path])
    unreadable = tmp_path / "x.toml"
    unreadable.touch(mode=0)
    try:
        unreadable.read_text()
    except PermissionError:
        with pytest.raises(PermissionDenied):
            image_config({}, [unreadable])
