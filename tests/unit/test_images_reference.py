"""Image references: valid ones, and errors with hints for invalid ones."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError
from armvm.images.reference import (
    CatalogReference,
    FileReference,
    LocalReference,
    UrlReference,
    catalog_text,
    parse,
    public_url,
)
from armvm.settings.catalogs import DISTROS

pytestmark = pytest.mark.unit

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "release", "serial"),
    [
        ("ubuntu:24.04", "24.04", None),
        ("ubuntu:noble", "noble", None),
        ("ubuntu:lts", "lts", None),
        ("ubuntu:default", "default", None),
        ("ubuntu:24.04/20260911", "24.04", "20260911"),
        ("ubuntu:24.04/20251009.1", "24.04", "20251009.1"),
    ],
)
def test_a_release_in_the_catalog(text: str, release: str, serial: str | None) -> None:
    assert parse(text) == CatalogReference(
        text=text, distro="ubuntu", release=release, serial=serial
    )


@pytest.mark.parametrize(
    ("text", "distro", "release", "serial", "variant"),
    [
        ("ubuntu:24.04@daily", "ubuntu", "24.04", None, "daily"),
        ("ubuntu:noble/20260911@minimal", "ubuntu", "noble", "20260911", "minimal"),
        ("debian:12", "debian", "12", None, None),
        ("debian:trixie/20250814-2204@generic", "debian", "trixie", "20250814-2204", "generic"),
        ("fedora:43/1.6", "fedora", "43", "1.6", None),
        ("alpine:3.22/3.22.1-r0", "alpine", "3.22", "3.22.1-r0", None),
        ("alpine:3.22.1", "alpine", "3.22.1", None, None),
        ("opensuse:tumbleweed/20260207", "opensuse", "tumbleweed", "20260207", None),
        ("corp:2026.1-rc1", "corp", "2026.1-rc1", None, None),
    ],
)
def test_all_distributions_and_the_whole_grammar(
    text: str, distro: str, release: str, serial: str | None, variant: str | None
) -> None:
    reference = parse(text, catalogs=(*DISTROS, "corp"))
    assert reference == CatalogReference(
        text=text, distro=distro, release=release, serial=serial, variant=variant
    )
    assert catalog_text(distro, release, serial=serial, variant=variant) == text


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "odd:name").touch()
    monkeypatch.setenv("HOME", "/home/somebody")
    for text, path in {
        "/x.qcow2": Path("/x.qcow2"),
        "./x.img": tmp_path / "x.img",
        "../x": tmp_path / ".." / "x",
        "~/x": Path("/home/somebody/x"),
        "missing.qcow2": tmp_path / "missing.qcow2",
        "sub/dir": tmp_path / "sub/dir",
        "plain": tmp_path / "plain",
        "odd:name": tmp_path / "odd:name",
    }.items():
        assert parse(text, cwd=tmp_path) == FileReference(text=text, path=path)


def test_urls() -> None:
    assert parse(f"https://example.org/a.img#sha256={HEX.upper()}") == UrlReference(
        text="https://example.org/a.img", url="https://example.org/a.img", digest=f"sha256:{HEX}"
    )
    assert parse("http://[::1]:8080/a%20b.img?token=1") == UrlReference(
        text="http://[::1]:8080/a%20b.img", url="http://[::1]:8080/a%20b.img?token=1"
    )
    text = f"file:///srv/a%20b.img#sha256={HEX}"
    assert parse(text) == FileReference(
        text=text, path=Path("/srv/a b.img"), digest=f"sha256:{HEX}"
    )


def test_a_password_in_a_url_is_not_shown() -> None:
    reference = parse("https://me:secret@example.org/a.img?sig=secret")
    assert isinstance(reference, UrlReference)
    assert reference.text == "https://example.org/a.img"
    assert "secret" in reference.url
    assert public_url("https://[broken") == "(malformed URL)"


def test_images_built_here() -> None:
    assert parse("local:debian-12") == LocalReference(text="local:debian-12", name="debian-12")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "ubuntu:",
        "ubuntu:24.04/",
        "ubuntu:24.04/latest",
        "ubuntu:24.04/../../x",
        "ubuntu:NOBLE",
        "ubuntu:a b",
        "ubuntu:24.04/20260911/1",
        "ubuntu:24.04@",
        "ubuntu:24.04@Daily",
        "ubuntu:24.04@daily/20260911",
        "ubuntu:24.04@daily@minimal",
        "ubuntu:24.04@../x",
        "debian:",
        "debian:../12",
        "alpine:3.22/..",
        "fedora:43/1.6/..",
        "corp:2026.1",
        "plan9:4",
        "noble",
        "local:",
        "local:../x",
        "local:a/b",
        "local:-rf",
        "ftp://example.org/a.img",
        "data:text/plain,x",
        "javascript:alert(1)",
        "s3://bucket/a.img",
        "http://",
        "http:///a.img",
        "https://exa mple.org/a.img",
        "http://example.org:port/a.img",
        "http://[::1/a.img",
        "file://elsewhere/a.img",
        "file:relative.img",
        "file:///a%00b",
        "file:///a%0ab.img",
        "file:///a%ff.img",
        "https://example.org/a.img#sha256=123",
        f"https://example.org/a.img#sha256={'g' * 64}",
        f"https://example.org/a.img#sha512={HEX}{HEX}",
        f"https://example.org/a.img#{HEX}",
        "/a\x00b",
        "/a\nb",
        "/a\x1b[31mb",
        "ubuntu:24.04\n",
        "~nobody-of-that-name/x.img",
        "/" + "a" * 5000,
    ],
)
def test_senseless_and_hostile_references_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, cwd=tmp_path)
    assert "ubuntu:24.04" in (caught.value.hint or "")
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message


@given(st.text(max_size=80) | st.from_regex(r"(ubuntu|debian|alpine|local|https?|file):.{0,40}"))
def test_any_text_gives_a_reference_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        reference = parse(text, cwd=Path("/nonexistent"))
        if isinstance(reference, CatalogReference):
            parts = (reference.release, reference.serial or "", reference.variant or "")
            assert not any("/" in part or ".." in part.split("/") for part in parts)


def test_a_catalogs_name_that_is_nearly_right() -> None:
    with pytest.raises(ConfigError, match=r"unknown catalog 'debain'; did you mean debian:12\?"):
        parse("debain:12")
    with pytest.raises(ConfigError, match="unknown catalog 'windows'"):
        parse("windows:11")
