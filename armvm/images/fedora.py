"""Fedora Cloud Base images.

The layout of https://dl.fedoraproject.org/pub/fedora/linux/ (Lima's
hack/update-template-fedora.sh, and Fedora's releases.json)::

    releases/43/Cloud/aarch64/images/Fedora-Cloud-43-1.6-aarch64-CHECKSUM      clear-signed
    releases/43/Cloud/aarch64/images/Fedora-Cloud-Base-Generic-43-1.6.aarch64.qcow2

The image's name has changed: ``Fedora-Cloud-Base-39-1.5.aarch64.qcow2``,
``Fedora-Cloud-Base-Generic.aarch64-40-1.14.qcow2``, since 41 as above. So the directory is asked
for it. ``1.6`` is the compose, here the serial. A release is on that server while Fedora supports
it; older ones move to https://archives.fedoraproject.org/pub/archive/fedora/linux/, which can be
named as a mirror.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from armvm.errors import FetchFailed
from armvm.images.catalog import (
    Found,
    Offer,
    check_variant,
    no_such_release,
    no_such_serial,
    numbers,
    offers_of,
)
from armvm.images.listing import directory, directory_if_any, of_release
from armvm.images.openpgp import Key
from armvm.images.reference import CatalogReference
from armvm.images.statement import Statement
from armvm.images.transport import Web
from armvm.progress import Progress
from armvm.spec.system import OperatingSystem

#: Not download.fedoraproject.org, which sends each request to another mirror.
BASE = "https://dl.fedoraproject.org/pub/fedora/linux/"

_IMAGE = re.compile(
    r"Fedora-Cloud-Base(?:-Generic)?"
    r"(?:-(?P<v1>\d{2,3})-(?P<s1>\d+(?:\.\d+)+)\.aarch64|\.aarch64-(?P<v2>\d{2,3})-(?P<s2>\d+(?:\.\d+)+))"
    r"\.qcow2\Z"
)
_CHECKSUM = re.compile(r"Fedora-Cloud-(\d{2,3})-(\d+(?:\.\d+)+)-aarch64-CHECKSUM\Z")
_VERSION = re.compile(r"\d{2,3}\Z")

#: Each release's key, from https://fedoraproject.org/security; signs its CHECKSUM files.
_FINGERPRINTS = {
    "42": "B0F4950458F69E1150C6C5EDC8AC4916105EF944",
    "43": "C6E7F081CF80E13146676E88829B606631645531",
    "44": "36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6",
}


def keys_of(version: str) -> tuple[Key, ...]:
    """Return the key of a release; of one that is not known here, all keys.

    So a release that is newer than this list is refused as signed by somebody else, and is not
    quietly taken for unsigned.
    """
    known = [version] if version in _FINGERPRINTS else list(_FINGERPRINTS)
    return tuple(
        Key(
            fingerprint=_FINGERPRINTS[one],
            owner=f"Fedora ({one})",
            keyrings=(
                f"/etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-{one}-primary",
                f"/usr/share/distribution-gpg-keys/fedora/RPM-GPG-KEY-fedora-{one}-primary",
            ),
        )
        for one in known
    )


@dataclass(frozen=True, kw_only=True)
class Fedora:
    """Fedora's images on a server with the tree of ``pub/fedora/linux/``."""

    base: str = BASE
    name: str = "fedora"
    variants: tuple[str, ...] = ()

    def find(self, reference: CatalogReference, web: Web, progress: Progress) -> Found:
        """Find a release's image; ``latest`` is the newest release."""
        check_variant(self, reference)
        version = reference.release
        if version == "latest":
            version = next(iter(self._versions(web, progress)), "")
        if not _VERSION.match(version):
            no_such_release(reference, self._versions(web, progress))
        place = self._place(version)
        names = of_release(
            web,
            place,
            progress,
            reference=reference,
            version=version,
            known=lambda: self._versions(web, progress),
        )
        images, sums = _images(names, version), _checksums(names, version)
        serials = sorted(images, key=numbers, reverse=True)
        serial = reference.serial or next(iter(serials), "")
        if serial not in images:
            no_such_serial(reference, version, serials)
        if serial not in sums:
            raise FetchFailed(
                f"Fedora {version} {serial} has no CHECKSUM file",
                detail=place,
                hint="try again later, or name another serial",
            )
        return Found(
            location=place + images[serial],
            name=images[serial],
            version=version,
            system=OperatingSystem(distro="fedora", version=version),
            serial=serial,
            pinned=reference.serial is not None,
            statement=Statement(url=place + sums[serial], clear=True, keys=keys_of(version)),
        )

    def releases(self, web: Web, progress: Progress, *, every: bool = False) -> list[Offer]:
        """List the releases that the server has, with their newest image; or every image."""
        offers = []
        for version in self._versions(web, progress):
            # None: a release without cloud images for arm64.
            names = directory_if_any(web, self._place(version), progress)
            serials = sorted(_images(names, version), key=numbers, reverse=True)
            offers += offers_of("fedora", version, serials, every=every)
        return offers

    def means(self, release: str, version: str) -> bool:
        """Versions mean themselves; latest means any."""
        return release in (version, "latest")

    def usual(self) -> list[str]:
        """The releases that people ask for."""
        return ["fedora:latest", *(f"fedora:{one}" for one in sorted(_FINGERPRINTS, reverse=True))]

    def _place(self, version: str) -> str:
        return f"{self.base}releases/{version}/Cloud/aarch64/images/"

    def _versions(self, web: Web, progress: Progress) -> list[str]:
        names = [name.rstrip("/") for name in directory(web, f"{self.base}releases/", progress)]
        return sorted(filter(_VERSION.match, names), key=numbers, reverse=True)


def _images(names: list[str], version: str) -> dict[str, str]:
    """Return serials with the images' names."""
    found = {}
    for name in names:
        match = _IMAGE.match(name)
        if match and version == (match["v1"] or match["v2"]):
            found[match["s1"] or match["s2"]] = name
    return found


def _checksums(names: list[str], version: str) -> dict[str, str]:
    """Return serials with the names of the checksum files."""
    matches = [match for match in map(_CHECKSUM.match, names) if match]
    return {match[2]: match[0] for match in matches if match[1] == version}
