"""Debian's cloud images: ``@genericcloud`` (default), ``@generic``, and both as ``@daily…``.

The layout of https://cloud.debian.org/images/cloud/ (its own README, and Lima's
hack/update-template-debian.sh)::

    bookworm/latest/debian-12-genericcloud-arm64.json         a manifest with the serial
    bookworm/20250814-2204/SHA512SUMS
    bookworm/20250814-2204/debian-12-genericcloud-arm64-20250814-2204.qcow2
    bookworm/daily/20250814-2204/debian-12-genericcloud-arm64-daily-20250814-2204.qcow2

sid, and the release in development (``testing``), have only daily images. ``latest`` can change
between two requests; a serial's directory does not, so images are fetched from there. The checksum
files are not signed; only the server's TLS certificate verifies them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from armvm.base.errors import FetchFailed, NotFound
from armvm.images.distros.catalog import (
    Asking,
    Found,
    Offer,
    check_variant,
    no_such_release,
    no_such_serial,
    numbers,
    offers_of,
)
from armvm.images.distros.listing import directory, directory_if_any, releases_in
from armvm.images.fetch import documents, json_document
from armvm.images.fetch.http import Missing
from armvm.images.reference import CatalogReference
from armvm.images.trust.statement import Statement
from armvm.settings.system import CODENAMES, DEBIAN_SUITES, OperatingSystem

BASE = "https://cloud.debian.org/images/cloud/"

_SID = "sid"
_CODENAMES = {version: name for name, version in CODENAMES["debian"].items()} | {_SID: _SID}
_VERSIONS = CODENAMES["debian"] | DEBIAN_SUITES
#: References that mean a daily image, because there is no other.
_DAILY = ("testing", "unstable", _SID)
_SERIAL = re.compile(r"[0-9]{8}-[0-9]{1,6}\Z")

#: variant → the image's kind, and whether it is in the daily tree.
_VARIANTS = {
    "genericcloud": ("genericcloud", False),
    "generic": ("generic", False),
    "daily": ("genericcloud", True),
    "generic-daily": ("generic", True),
}
_USUAL = "genericcloud"

#: Number of directories to fetch in parallel: each serial has one.
_AT_ONCE = 6

#: Maximum size of a manifest, in bytes (50 kB in 2025: it lists the packages).
MAX_MANIFEST = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Debian:
    """Debian's images on a server with the layout of cloud.debian.org's ``images/cloud/``."""

    base: str = BASE
    name: str = "debian"
    variants: tuple[str, ...] = tuple(_VARIANTS)
    usual_variant: str | None = _USUAL
    signed: bool = False

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find an image by version or codename, and serial (``20250814-2204``)."""
        version = _VERSIONS.get(reference.release, reference.release)
        variant = check_variant(self, reference) or _USUAL
        if reference.release in _DAILY:
            variant = _daily(variant)
        daily = _VARIANTS[variant][1]
        if version not in _CODENAMES:
            no_such_release(reference, sorted(_CODENAMES, key=numbers, reverse=True))
        tree = f"{self.base}{_CODENAMES[version]}/" + ("daily/" if daily else "")
        stem = _stem(version, variant)
        serial = reference.serial
        if serial is None:
            serial = self._latest(tree, stem, version, ask)
        else:
            there = _serials(directory_if_any(ask, tree))
            if serial not in there and (there or not _SERIAL.match(serial)):
                no_such_serial(reference, version, there)
        name = f"{stem}-{serial}.qcow2"
        return Found(
            location=f"{tree}{serial}/{name}",
            name=name,
            version=version,
            system=OperatingSystem(distro="debian", version=version),
            serial=serial,
            variant=None if variant == _USUAL else variant,
            pinned=reference.serial is not None,
            statement=Statement(url=f"{tree}{serial}/SHA512SUMS"),
        )

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List each release's newest serial, or all images of all serials, daily ones included."""
        offers = []
        there = self._codenames(ask)
        for version in sorted(_CODENAMES, key=numbers, reverse=True):
            if _CODENAMES[version] not in there:
                continue
            if version == _SID:
                offers += self._sid(ask, every=every)
                continue
            tree = f"{self.base}{_CODENAMES[version]}/"
            title = _CODENAMES[version]
            serials = _serials(directory_if_any(ask, tree))
            if not every:
                offers += offers_of("debian", version, serials, every=False, title=title)
                continue
            daily = _serials(directory_if_any(ask, f"{tree}daily/"))
            names = self._images(ask, [f"{tree}{one}/" for one in serials])
            names |= self._images(ask, [f"{tree}daily/{one}/" for one in daily])
            for variant, (_, of_day) in _VARIANTS.items():
                offers += offers_of(
                    "debian",
                    version,
                    [
                        one
                        for one in (daily if of_day else serials)
                        if f"{_stem(version, variant)}-{one}.qcow2" in names
                    ],
                    every=True,
                    variant=None if variant == _USUAL else variant,
                    title=title,
                )
        return offers

    def _sid(self, ask: Asking, *, every: bool) -> list[Offer]:
        """List sid's images, which are all daily."""
        tree = f"{self.base}{_SID}/daily/"
        serials = _serials(directory_if_any(ask, tree))
        names = self._images(ask, [f"{tree}{one}/" for one in serials]) if every else set()
        offers = []
        for variant in ("daily", "generic-daily") if every else ("daily",):
            stem = _stem(_SID, variant)
            there = [one for one in serials if not every or f"{stem}-{one}.qcow2" in names]
            offers += offers_of(
                "debian", _SID, there, every=every, variant=variant, title="unstable"
            )
        return offers

    def _images(self, ask: Asking, places: list[str]) -> set[str]:
        """Return the names of all files in some directories, fetched in parallel."""
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            found = pool.map(lambda place: directory_if_any(ask, place), places)
            return {name for names in found for name in names}

    def means(self, release: str, version: str) -> bool:
        """Versions and codenames match themselves."""
        return version == _VERSIONS.get(release, release)

    def usual(self) -> list[str]:
        """Common releases."""
        return [
            "debian:13",
            "debian:12",
            "debian:trixie",
            "debian:bookworm",
            "debian:13@generic",
            "debian:sid",
        ]

    def _codenames(self, ask: Asking) -> list[str]:
        names = [name.rstrip("/") for name in directory(ask, self.base)]
        found = [name for name in names if name in (*CODENAMES["debian"], _SID)]
        return releases_in(found, self.base, self.name)

    def _latest(self, tree: str, stem: str, version: str, ask: Asking) -> str:
        """Return the serial of ``latest``, from its manifest."""
        url = f"{tree}latest/{stem}.json"
        try:
            manifest = documents.document(ask.web, url, progress=ask.progress, limit=MAX_MANIFEST)
        except Missing:
            self._codenames(ask)  # raises if the server is not a mirror
            if _serials(directory_if_any(ask, tree)):
                raise
            # A release in development has only daily images.
            raise NotFound(
                f"image of Debian {version} for arm64 not found",
                detail=url,
                hint=f"try the daily images: debian:{version}@daily",
            ) from None
        serial = serial_in(manifest)
        if serial is None:
            raise FetchFailed(
                "Debian's image manifest contains no serial",
                detail=url,
                hint="choose a serial from: armvm image list --remote --all",
            )
        return serial


def _daily(variant: str) -> str:
    """Return the daily variant of the same kind of image."""
    kind = _VARIANTS[variant][0]
    return next(one for one, value in _VARIANTS.items() if value == (kind, True))


def _stem(version: str, variant: str) -> str:
    """Return the common start of a variant's image names."""
    kind, daily = _VARIANTS[variant]
    return f"debian-{version}-{kind}-arm64" + ("-daily" if daily else "")


def _serials(names: list[str]) -> list[str]:
    """Return the serials in a directory's names, newest first."""
    found = [name.rstrip("/") for name in names]
    return sorted(filter(_SERIAL.match, found), key=numbers, reverse=True)


def serial_in(manifest: bytes) -> str | None:
    """Return the serial in a manifest: the label of its first item that has one, or None."""
    try:
        document: Any = json_document.load(manifest)
    except ValueError:
        return None
    items = document.get("items") if isinstance(document, Mapping) else None
    for item in items if isinstance(items, list) else []:
        value: Any = item
        for key in ("metadata", "labels", "cloud.debian.org/version"):
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, str) and _SERIAL.match(value):
            return value
    return None
