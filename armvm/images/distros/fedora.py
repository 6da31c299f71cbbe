"""Fedora Cloud Base images.

The layout of https://dl.fedoraproject.org/pub/fedora/linux/ (Lima's
hack/update-template-fedora.sh, and Fedora's releases.json)::

    releases/43/Cloud/aarch64/images/Fedora-Cloud-43-1.6-aarch64-CHECKSUM      clear-signed
    releases/43/Cloud/aarch64/images/Fedora-Cloud-Base-Generic-43-1.6.aarch64.qcow2

    development/rawhide/Cloud/aarch64/images/
        Fedora-Cloud-Base-Generic-Rawhide-20260912.n.0.aarch64.qcow2
        Fedora-Cloud-images-Rawhide-aarch64-20260912.n.0-CHECKSUM

The image's name has changed: ``Fedora-Cloud-Base-39-1.5.aarch64.qcow2``,
``Fedora-Cloud-Base-Generic.aarch64-40-1.14.qcow2``, since 41 as above. So armvm reads the
directory. The compose (``1.6``) is used as the serial. The server keeps supported releases;
older ones move to https://archives.fedoraproject.org/pub/archive/fedora/linux/, which can be
configured as a mirror.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from armvm.base.errors import FetchFailed
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
from armvm.images.distros.listing import directory, directory_if_any, of_release, releases_in
from armvm.images.reference import CatalogReference
from armvm.images.trust.openpgp import Key
from armvm.images.trust.pinned import FEDORA
from armvm.images.trust.statement import Statement
from armvm.settings.system import OperatingSystem

#: Not download.fedoraproject.org, which redirects each request to another mirror.
BASE = "https://dl.fedoraproject.org/pub/fedora/linux/"

_IMAGE = re.compile(
    r"Fedora-Cloud-Base(?:-Generic)?"
    r"(?:-(?P<v1>\d{2,3})-(?P<s1>\d+(?:\.\d+)+)\.aarch64|\.aarch64-(?P<v2>\d{2,3})-(?P<s2>\d+(?:\.\d+)+))"
    r"\.qcow2\Z"
)
_CHECKSUM = re.compile(r"Fedora-Cloud-(\d{2,3})-(\d+(?:\.\d+)+)-aarch64-CHECKSUM\Z")
_VERSION = re.compile(r"\d{2,3}\Z")

#: Fedora's development, whose composes are named by their date.
RAWHIDE = "rawhide"
_RAWHIDE_IMAGE = re.compile(
    r"Fedora-Cloud-Base(?:-Generic)?-Rawhide-(\d{8}\.n\.\d{1,3})\.aarch64\.qcow2\Z"
)
_RAWHIDE_CHECKSUM = re.compile(
    r"Fedora-Cloud(?:-images)?-Rawhide-(?:aarch64-)?(\d{8}\.n\.\d{1,3})(?:-aarch64)?-CHECKSUM\Z"
)


@dataclass(frozen=True, kw_only=True)
class Fedora:
    """Fedora's images on a server with the layout of ``pub/fedora/linux/``."""

    base: str = BASE
    name: str = "fedora"
    variants: tuple[str, ...] = ()
    usual_variant: str | None = None
    signed: bool = True
    keys: Mapping[str, Key] = field(default_factory=lambda: FEDORA)

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find a release's image; ``latest`` is the newest release."""
        check_variant(self, reference)
        version = reference.release
        if version == "latest":
            version = next(iter(self._versions(ask)), "")
        if version != RAWHIDE and not _VERSION.match(version):
            no_such_release(reference, self._versions(ask))
        place = self._place(version)
        names = of_release(
            ask,
            place,
            reference=reference,
            version=version,
            known=lambda: [*self._versions(ask), RAWHIDE],
            images=lambda names: _images(names, version),
        )
        images, sums = _images(names, version), _checksums(names, version)
        serials = sorted(images, key=numbers, reverse=True)
        serial = reference.serial or next(iter(serials), "")
        if serial not in images:
            no_such_serial(reference, version, serials)
        if serial not in sums:
            raise FetchFailed(
                f"CHECKSUM file of Fedora {version} {serial} not found",
                detail=place,
                hint="try again later, or choose another serial",
            )
        return Found(
            location=place + images[serial],
            name=images[serial],
            version=version,
            system=OperatingSystem(distro="fedora", version=version),
            serial=serial,
            pinned=reference.serial is not None,
            statement=Statement(url=place + sums[serial], clear=True, keys=self.keys_of(version)),
        )

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List the server's releases with their newest image, or every image."""
        offers = []
        for version in [*self._versions(ask), RAWHIDE]:
            # None: a release without cloud images for arm64.
            names = directory_if_any(ask, self._place(version))
            serials = sorted(_images(names, version), key=numbers, reverse=True)
            title = "development" if version == RAWHIDE else ""
            offers += offers_of("fedora", version, serials, every=every, title=title)
        return offers

    def means(self, release: str, version: str) -> bool:
        """Versions match themselves; latest matches any release."""
        return release == version or (release == "latest" and version != RAWHIDE)

    def usual(self) -> list[str]:
        """Common releases."""
        return ["fedora:latest", "fedora:44", "fedora:43", "fedora:rawhide"]

    def keys_of(self, version: str) -> tuple[Key, ...]:
        """Return the key of a release, or all keys if its key is not pinned.

        So a release newer than the pins is rejected as signed by an unknown key, instead of
        being accepted as unsigned.
        """
        return (self.keys[version],) if version in self.keys else tuple(self.keys.values())

    def _place(self, version: str) -> str:
        folder = "development" if version == RAWHIDE else "releases"
        return f"{self.base}{folder}/{version}/Cloud/aarch64/images/"

    def _versions(self, ask: Asking) -> list[str]:
        url = f"{self.base}releases/"
        names = [name.rstrip("/") for name in directory(ask, url)]
        found = sorted(filter(_VERSION.match, names), key=numbers, reverse=True)
        return releases_in(found, url, self.name)


def system_of(name: str) -> OperatingSystem | None:
    """Return the release in an image's file name; None for other files."""
    if _RAWHIDE_IMAGE.match(name):
        return OperatingSystem(distro="fedora", version=RAWHIDE)
    match = _IMAGE.match(name)
    return match and OperatingSystem(distro="fedora", version=match["v1"] or match["v2"])


def _images(names: list[str], version: str) -> dict[str, str]:
    """Return serials with the names of the images."""
    if version == RAWHIDE:
        return {match[1]: match[0] for match in map(_RAWHIDE_IMAGE.match, names) if match}
    found = {}
    for name in names:
        match = _IMAGE.match(name)
        if match and version == (match["v1"] or match["v2"]):
            found[match["s1"] or match["s2"]] = name
    return found


def _checksums(names: list[str], version: str) -> dict[str, str]:
    """Return serials with the names of the checksum files."""
    if version == RAWHIDE:
        return {match[1]: match[0] for match in map(_RAWHIDE_CHECKSUM.match, names) if match}
    matches = [match for match in map(_CHECKSUM.match, names) if match]
    return {match[2]: match[0] for match in matches if match[1] == version}
