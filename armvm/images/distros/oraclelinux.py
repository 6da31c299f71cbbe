"""Oracle Linux's images for KVM.

Each release has a JSON file that names its newest image (Lima's
hack/update-template-oraclelinux.sh)::

    https://yum.oracle.com/templates/OracleLinux/ol10_aarch64-cloud-template.json
        {"base_url": "/templates/OracleLinux/OL10/u1/aarch64",
         "kvm": {"image": "OL10U1_aarch64-kvm-cloud-b178.qcow2", "sha256": "…"}, …}

Only this image is listed; its serial is the update and the build (``10.1-b178``). The digest is in
the same file, which is not signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from armvm.base.errors import FetchFailed
from armvm.images.distros.catalog import (
    Asking,
    Found,
    Offer,
    check_variant,
    no_such_release,
    no_such_serial,
    offers_of,
)
from armvm.images.fetch import documents, json_document
from armvm.images.fetch.http import Missing
from armvm.images.reference import CatalogReference, parse_sha256
from armvm.settings.system import OperatingSystem

BASE = "https://yum.oracle.com/templates/OracleLinux/"
RELEASES = ("10", "9", "8")

_PLACE = re.compile(r"/templates/OracleLinux/(OL(\d{1,2})/u(\d{1,2})/aarch64)/?\Z")
_IMAGE = re.compile(r"OL(\d{1,2})U(\d{1,2})_aarch64-kvm(?:-cloud)?-(b\d{1,6})\.qcow2?\Z")
#: Maximum size of the file, in bytes; it has about 1 kB.
_MAX = 1 << 20


@dataclass(frozen=True, kw_only=True)
class OracleLinux:
    """Oracle's images on a server with the layout of ``templates/OracleLinux/``."""

    base: str = BASE
    name: str = "oraclelinux"
    variants: tuple[str, ...] = ()
    usual_variant: str | None = None
    signed: bool = False

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find a release's newest image; ``latest`` is the newest release."""
        check_variant(self, reference)
        version = RELEASES[0] if reference.release == "latest" else reference.release
        if version not in RELEASES:
            no_such_release(reference, RELEASES)
        try:
            found = self._newest(version, ask)
        except Missing:
            there = self._all(ask)
            no_such_release(reference, list(there))
        if reference.serial not in (None, found.serial):
            no_such_serial(reference, version, [found.serial or ""])
        return replace(found, pinned=reference.serial is not None)

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List the newest image of each release; there is no list of others."""
        offers = []
        for version, found in self._all(ask).items():
            serials = [found.serial or ""]
            offers += offers_of(self.name, version, serials, every=every, title="Oracle Linux")
        return offers

    def means(self, release: str, version: str) -> bool:
        """Versions match themselves, and latest matches any."""
        return release in (version, "latest")

    def usual(self) -> list[str]:
        """Common releases."""
        return [f"{self.name}:{one}" for one in RELEASES]

    def _all(self, ask: Asking) -> dict[str, Found]:
        """Return the releases with their images. Raises FetchFailed if there are none."""
        found = {}
        for version in RELEASES:
            try:
                found[version] = self._newest(version, ask)
            except Missing:
                continue
        if not found:
            raise documents.no_catalog(self.base, f"is not a catalog of {self.name}")
        return found

    def _newest(self, version: str, ask: Asking) -> Found:
        url = f"{self.base}ol{version}_aarch64-cloud-template.json"
        data = documents.document(ask.web, url, progress=ask.progress, limit=_MAX)
        try:
            document: Any = json_document.load(data)
        except ValueError:
            document = None
        entry = document.get("kvm") if isinstance(document, Mapping) else None
        if not isinstance(entry, Mapping):
            raise _invalid(url)
        place = _PLACE.match(str(document.get("base_url")))
        image = _IMAGE.match(str(entry.get("image")))
        digest = parse_sha256(str(entry.get("sha256")))
        if not place or not image or not digest:
            raise _invalid(url)
        if {place[2], image[1]} != {version} or place[3] != image[2]:
            raise _invalid(url)
        return Found(
            location=f"{self.base}{place[1]}/{image[0]}",
            name=image[0],
            version=version,
            system=OperatingSystem(distro=self.name, version=version),
            serial=f"{version}.{image[2]}-{image[3]}",
            digest=digest,
        )


def _invalid(url: str) -> FetchFailed:
    return FetchFailed(
        "usable image not found in Oracle's list",
        detail=url,
        hint="check the mirror if one is set, or download the image and use the file",
    )


def system_of(name: str) -> OperatingSystem | None:
    """Return the release in an image's file name; None for other files."""
    match = _IMAGE.match(name)
    return match and OperatingSystem(distro="oraclelinux", version=match[1])
