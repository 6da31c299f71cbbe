"""Simplestreams: the right image is chosen, and hostile JSON is our error, never a traceback."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ArmvmError, FetchFailed, NotFound
from armvm.images.distros.simplestreams import CatalogImage, products_path, select

pytestmark = pytest.mark.unit

DATA = Path(__file__).parent.parent / "data" / "simplestreams"
INDEX = (DATA / "index.json").read_bytes()
PRODUCTS = (DATA / "download.json").read_bytes()
ARM = "com.ubuntu.cloud:server:24.04:arm64"


def test_the_index_leads_to_the_released_images() -> None:
    assert products_path(INDEX) == "streams/v1/com.ubuntu.cloud:released:download.json"


def test_an_index_of_another_stream() -> None:
    path = "streams/v1/com.ubuntu.cloud:daily:download.json"
    index = {"index": {"daily": {"datatype": "image-downloads", "path": path}}}
    assert products_path(json.dumps(index).encode()) == path


@pytest.mark.parametrize("release", ["24.04", "noble", "n", "lts", "default"])
def test_a_release_by_version_codename_and_alias(release: str) -> None:
    image = select(PRODUCTS, release=release)
    # 20260911 is newer, but has no disk image yet.
    assert (image.version, image.codename, image.serial) == ("24.04", "noble", "20260909")
    assert image.path.endswith("release-20260909/ubuntu-24.04-server-cloudimg-arm64.img")
    assert image.size == 611254272
    assert image.digest.startswith("sha256:")


def test_serials_are_compared_as_numbers() -> None:
    assert select(PRODUCTS, release="25.10").serial == "20251009.1"


def test_a_serial_asked_for() -> None:
    assert select(PRODUCTS, release="noble", serial="20240423").serial == "20240423"


def test_an_old_release_boots_from_uefi1() -> None:
    assert select(PRODUCTS, release="16.04").path.endswith("arm64-uefi1.img")


def test_a_serial_that_is_not_there_names_some_that_are() -> None:
    with pytest.raises(NotFound) as caught:
        select(PRODUCTS, release="24.04", serial="20200101")
    assert "20260909, 20240423" in (caught.value.hint or "")


def test_a_release_that_is_not_there_names_some_that_are() -> None:
    with pytest.raises(NotFound) as caught:
        select(PRODUCTS, release="23.04")
    assert "25.10 (questing), 24.04 (noble)" in (caught.value.hint or "")


def changed(**facts: Any) -> bytes:
    document = json.loads(PRODUCTS)
    document["products"][ARM]["versions"]["20260909"]["items"]["disk1.img"].update(facts)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "server/../../x.img",
        "/etc/passwd",
        "//evil.example/x.img",
        "https://evil.example/x.img",
        "file:///etc/passwd",
        "server//x.img",
        "server/./x.img",
        "server/%2e%2e/x.img",
        "server\\..\\x.img",
        "x.img?token",
        "x.img#sha256=0",
        "x\n.img",
        "x\x00.img",
        "\ud800.img",
        "",
        "a" * 2000,
        None,
        7,
        ["x.img"],
    ],
)
def test_unsafe_paths(path: Any) -> None:
    with pytest.raises(FetchFailed):
        select(changed(path=path), release="24.04")
    index = {"index": {"x": {"datatype": "image-downloads", "path": path}}}
    with pytest.raises(FetchFailed):
        products_path(json.dumps(index).encode())


@pytest.mark.parametrize("digest", [None, "", "zz" * 32, "ab" * 31, "ab" * 33, 5, ["ab" * 32]])
def test_digests_that_are_none(digest: Any) -> None:
    with pytest.raises(FetchFailed, match="sha256"):
        select(changed(sha256=digest), release="24.04")


@pytest.mark.parametrize("size", [0, -1, 1 << 50, "611254272", True, 1.5, [], 10**400])
def test_absurd_sizes(size: Any) -> None:
    with pytest.raises(FetchFailed, match="size"):
        select(changed(size=size), release="24.04")


def test_a_missing_size_is_not_known() -> None:
    assert select(changed(size=None), release="24.04").size is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"7",
        b'{"index": [], "products": []}',
        b'{"products": {"a": 1, "index": 2}, "index": {"a": 1}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        b'{"index": NaN}',
    ],
)
def test_documents_that_are_no_catalog(text: bytes) -> None:
    with pytest.raises(FetchFailed):
        products_path(text)
    with pytest.raises((FetchFailed, NotFound)):
        select(text, release="24.04")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(VALUES, VALUES, VALUES, VALUES)
def test_any_json_gives_an_image_or_our_error(a: Any, b: Any, c: Any, d: Any) -> None:
    item = {"path": a, "sha256": b, "size": c}
    version = {"items": {"disk1.img": item}}
    shapes = [
        a,
        {"index": a, "products": a},
        {"index": {"x": a, "y": {"path": b}}, "products": {"p": a, "q": {"arch": "arm64"}}},
        {"products": {ARM: {"arch": "arm64", "aliases": a, "release": b, "versions": c}}},
        {"products": {ARM: {"arch": "arm64", "versions": {"20260909": a, "x": b}}}},
        {"products": {ARM: {"arch": "arm64", "versions": {"20260909": {"items": a}}}}},
        {"products": {ARM: {"arch": "arm64", "version": d, "versions": {"20260909": version}}}},
    ]
    for shape in shapes:
        data = json.dumps(shape).encode()
        with contextlib.suppress(ArmvmError):
            products_path(data)
        try:
            image = select(data, release="24.04")
        except ArmvmError:
            continue
        assert isinstance(image, CatalogImage)
        assert ".." not in image.path.split("/")
