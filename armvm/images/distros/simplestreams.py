"""Parse simplestreams catalogs: from two JSON documents to an image's path and digest.

Pure: bytes in, data out. All documents come from the network and are untrusted: a missing key, a
wrong type or a path out of the tree raises FetchFailed, never a traceback.
The layout (``index:1.0``, ``products:1.0``) is that of https://cloud-images.ubuntu.com/releases/,
/daily/ and /minimal/releases/.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from armvm.base.errors import FetchFailed, NotFound
from armvm.images.distros.catalog import numbers
from armvm.images.fetch import json_document
from armvm.images.fetch.download import MAX_IMAGE
from armvm.images.reference import parse_sha256

#: The index's path, relative to a mirror's base.
INDEX_PATH = "streams/v1/index.json"

#: The preferred stream if an index lists several.
RELEASED = "com.ubuntu.cloud:released:download"

#: Bootable items, the preferred first: if an old release (16.04) has both, only uefi1.img has an
#: EFI system partition.
ITEMS = ("uefi1.img", "disk1.img")

_VERSION = re.compile(r"[0-9]{1,2}\.[0-9]{2}\Z")
_SERIAL = re.compile(r"[0-9]{8}(?:\.[0-9]{1,4})?\Z")
_CODENAME = re.compile(r"[a-z0-9.]{1,32}\Z")
#: Maximum length of the list of a release's aliases, in characters.
_ALIASES = 1024


@dataclass(frozen=True, kw_only=True)
class CatalogImage:
    """One image in a catalog.

    ``path`` is relative to the catalog's base and safe to append to it; ``digest`` is ``sha256:``
    and 64 hex digits; ``size`` is in bytes, None if the catalog has none.
    """

    version: str
    codename: str
    serial: str
    path: str
    digest: str
    size: int | None


def products_path(index: bytes) -> str:
    """Return the path of the products file in an index, relative to the base.

    Raises FetchFailed if the index is invalid or leads out of the tree.
    """
    streams = _mapping(_load(index, "index").get("index"), "the catalog's index")
    candidates = [streams.get(RELEASED), *streams.values()]
    for entry in candidates:
        if isinstance(entry, Mapping) and entry.get("datatype", "image-downloads") == (
            "image-downloads"
        ):
            return _safe_path(entry.get("path"))
    raise FetchFailed("no image downloads in the image catalog's index", hint=_MIRROR_HINT)


def select(
    products: bytes, *, release: str, serial: str | None = None, arch: str = "arm64"
) -> CatalogImage:
    """Return the newest image of a release, or the one with the *serial*.

    *release* is a version (``24.04``), a codename or an alias (``lts``, ``default``). Raises
    NotFound, with some that exist, and FetchFailed for an invalid catalog.
    """
    found = []
    known = []
    for version, codename, product in _products(products, arch):
        known.append((numbers(version), version, codename))
        if release in {version, codename, *_aliases(product)}:
            found.append((numbers(version), version, codename, product))
    if not found:
        names = [f"{v} ({c})" if c else v for _, v, c in sorted(known, reverse=True)[:6]]
        raise NotFound(
            f"release {release!r} not found for {arch} in the image catalog",
            hint=f"known: {', '.join(names)}" if names else _MIRROR_HINT,
        )
    _, version, codename, product = max(found, key=lambda entry: entry[:2])
    return _image(product, version, codename, serial)


def images(products: bytes, *, arch: str = "arm64") -> list[CatalogImage]:
    """Return all images, newest release and serial first; invalid entries are omitted.

    Raises FetchFailed for a document that is not a catalog.
    """
    found = []
    for version, codename, product in _products(products, arch):
        for serial, item in _serials(product, version):
            with contextlib.suppress(FetchFailed):
                found.append(_entry(version, codename, serial, item))
    return sorted(found, key=lambda one: (numbers(one.version), numbers(one.serial)), reverse=True)


def _products(document: bytes, arch: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield version, codename and product of everything for an architecture."""
    products = _load(document, "products file").get("products")
    for key, product in _mapping(products, "the catalog's products").items():
        if isinstance(product, Mapping) and product.get("arch") == arch:
            version = _version(key, product)
            if version is not None:
                yield version, _codename(product), product


def _serials(product: Mapping[str, Any], version: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the serials that have a bootable image, newest first."""
    versions = _mapping(product.get("versions"), f"the catalog's images of {version}")
    usable = []
    for serial, entry in versions.items():
        if _SERIAL.match(serial) and isinstance(entry, Mapping):
            items = entry.get("items")
            names = [n for n in ITEMS if isinstance(items, Mapping) and n in items]
            if names and isinstance(items, Mapping):
                item = _mapping(items[names[0]], f"{names[0]} of {version} {serial}")
                usable.append((serial, item))
    return sorted(usable, key=lambda image: numbers(image[0]), reverse=True)


def _entry(version: str, codename: str, serial: str, item: Mapping[str, Any]) -> CatalogImage:
    return CatalogImage(
        version=version,
        codename=codename,
        serial=serial,
        path=_safe_path(item.get("path")),
        digest=_digest(item.get("sha256")),
        size=_size(item.get("size")),
    )


def _image(
    product: Mapping[str, Any], version: str, codename: str, wanted: str | None
) -> CatalogImage:
    usable = _serials(product, version)
    for serial, item in usable:
        if wanted in (None, serial):
            return _entry(version, codename, serial, item)
    some = ", ".join(serial for serial, _ in usable[:5])
    asked = f"{version} with serial {wanted}" if wanted else version
    raise NotFound(
        f"image of {asked} not found in the image catalog",
        hint=f"available serials include: {some}" if some else _MIRROR_HINT,
    )


_MIRROR_HINT = "check the URL of the catalog or the mirror"


def _load(data: bytes, what: str) -> Mapping[str, Any]:
    try:
        document = json_document.load(data)
    except ValueError as error:
        raise FetchFailed(
            f"the image catalog's {what} is not valid JSON",
            detail=str(error)[:200],
            hint=_MIRROR_HINT,
        ) from error
    return _mapping(document, f"the catalog's {what}")


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FetchFailed(f"{what} is invalid (expected a JSON object)", hint=_MIRROR_HINT)
    return value


def _safe_path(value: Any) -> str:
    """Return a relative path, quoted for a URL. Rejects paths that could leave the tree."""
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= 1024
        or value.startswith("/")
        or any(part in ("", ".", "..") for part in value.split("/"))
        or not value.isprintable()
        # No backslash, query or fragment, and no percent sign, which could encode a dot or slash.
        or any(c in value for c in "\\?#%")
        or "//" in value
        or ":" in value.split("/")[0]
    ):
        raise FetchFailed(
            f"the image catalog has an unsafe path: {ascii(value)[:120]}", hint=_MIRROR_HINT
        )
    try:
        return quote(value, safe="/:~+,=@")
    except UnicodeError as error:
        raise FetchFailed("the image catalog has an invalid path (expected a string)") from error


def _digest(value: Any) -> str:
    digest = parse_sha256(value) if isinstance(value, str) else None
    if digest is None:
        raise FetchFailed(
            f"invalid sha256 {ascii(value)[:80]} for the image in the image catalog",
            hint=_MIRROR_HINT,
        )
    return digest


def _size(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_IMAGE:
        raise FetchFailed(
            f"invalid size {ascii(value)[:40]} for the image in the image catalog",
            hint=_MIRROR_HINT,
        )
    return value


def _version(key: str, product: Mapping[str, Any]) -> str | None:
    for value in (product.get("version"), *key.split(":")[2:3]):
        if isinstance(value, str) and _VERSION.match(value):
            return value
    return None


def _codename(product: Mapping[str, Any]) -> str:
    value = product.get("release")
    return value if isinstance(value, str) and _CODENAME.match(value) else ""


def _aliases(product: Mapping[str, Any]) -> list[str]:
    value = product.get("aliases")
    if not isinstance(value, str) or len(value) > _ALIASES:
        return []
    return [alias.strip() for alias in value.split(",")]
