"""Amazon Linux 2023's images for KVM.

The layout (Lima's hack/update-template-amazonlinux.sh)::

    https://cdn.amazonlinux.com/al2023/os-images/latest/        redirects to the newest version
    https://cdn.amazonlinux.com/al2023/os-images/2023.12.20260917.1/kvm-arm64/
        al2023-kvm-2023.12.20260917.1-kernel-6.1-arm64.xfs.gpt.qcow2      SHA256SUMS (GNU)

``latest`` can change between two requests, so armvm only takes the version from it, and then uses
that version's directory. On a mirror that does not redirect, the version is the one in the names of
latest's checksum file. The version is the serial. The server does not list versions, and the
checksum file is not signed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

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
from armvm.images.fetch import documents
from armvm.images.fetch.http import Missing
from armvm.images.reference import CatalogReference
from armvm.images.trust.checksums import digests
from armvm.images.trust.statement import Statement
from armvm.settings.system import OperatingSystem

BASE = "https://cdn.amazonlinux.com/al2023/os-images/"
RELEASE = "2023"

_IMAGE = re.compile(
    r"al2023-kvm-(2023\.\d{1,3}\.\d{8}\.\d{1,3})-kernel-\d+\.\d+-arm64\.[a-z0-9]+\.gpt\.qcow2\Z"
)
_SERIAL = re.compile(r"2023\.\d{1,3}\.\d{8}\.\d{1,3}\Z")
_LANDING = re.compile(r"/(2023\.\d{1,3}\.\d{8}\.\d{1,3})/(?:index\.html)?\Z")


@dataclass(frozen=True, kw_only=True)
class AmazonLinux:
    """Amazon's images on a server with the layout of ``al2023/os-images/``."""

    base: str = BASE
    name: str = "amazonlinux"
    variants: tuple[str, ...] = ()
    usual_variant: str | None = None
    signed: bool = False

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find the newest image, or one by its version (``2023.12.20260917.1``)."""
        check_variant(self, reference)
        if reference.release not in (RELEASE, "latest"):
            no_such_release(reference, [RELEASE])
        serial = reference.serial
        if serial is not None and not _SERIAL.match(serial):
            no_such_serial(reference, RELEASE, [self._newest(ask)])
        serial = serial or self._newest(ask)
        url = self._sums(serial)
        try:
            images = self._images(url, ask)
        except Missing:
            if reference.serial is None:
                raise
            no_such_serial(reference, RELEASE, [self._newest(ask)])
        if serial not in images:
            raise FetchFailed(
                f"image {serial} of Amazon Linux not found in its checksum file",
                detail=url,
                hint="try again later: the server may be publishing a new image",
            )
        name = images[serial]
        return Found(
            location=f"{self.base}{serial}/kvm-arm64/{name}",
            name=name,
            version=RELEASE,
            system=OperatingSystem(distro=self.name, version=RELEASE),
            serial=serial,
            pinned=reference.serial is not None,
            statement=Statement(url=url),
        )

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List the newest image; the server does not list others."""
        serials = [self._newest(ask)]
        return offers_of(self.name, RELEASE, serials, every=every, title="Amazon Linux")

    def means(self, release: str, version: str) -> bool:
        """There is one release."""
        return release in (version, "latest")

    def usual(self) -> list[str]:
        """The only release."""
        return [f"{self.name}:{RELEASE}"]

    def _sums(self, place: str) -> str:
        return f"{self.base}{place}/kvm-arm64/SHA256SUMS"

    def _newest(self, ask: Asking) -> str:
        try:
            place = documents.landing(ask.web, f"{self.base}latest/", progress=ask.progress)
        except Missing:
            place = ""
        if match := _LANDING.search(urlsplit(place).path):
            return match[1]
        url = self._sums("latest")
        serials = sorted(self._images(url, ask), key=numbers, reverse=True)
        if not serials:
            raise documents.no_catalog(url, "lists no image of Amazon Linux 2023 for arm64")
        return serials[0]

    def _images(self, url: str, ask: Asking) -> dict[str, str]:
        """Return the serials in a checksum file with the names of their images."""
        data = documents.document(
            ask.web, url, progress=ask.progress, limit=documents.MAX_CHECKSUMS
        )
        matches = [match for match in map(_IMAGE.match, digests(data)) if match]
        # Of several kernels, the oldest series: it is the one that the release began with.
        matches.sort(key=lambda match: numbers(match[0]), reverse=True)
        return {match[1]: match[0] for match in matches}


def system_of(name: str) -> OperatingSystem | None:
    """Return the release in an image's file name; None for other files."""
    return OperatingSystem(distro="amazonlinux", version=RELEASE) if _IMAGE.match(name) else None
