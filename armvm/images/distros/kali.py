"""Kali's cloud images.

The layout (https://kali.download/cloud-images/, as Kali's documentation links to it)::

    kali-2026.2/kali-linux-2026.2-cloud-genericcloud-arm64.tar.xz      disk.raw in a tar archive
    kali-2026.2/SHA256SUMS                                             GNU
    current/                                                           a link to the newest

``current`` can change between two requests, so armvm reads the newest version from the directory.
Each version has one image. We could not confirm that the checksum file is signed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from armvm.images.distros.catalog import (
    Asking,
    Found,
    Offer,
    check_variant,
    no_such_serial,
    numbers,
    offers_of,
)
from armvm.images.distros.listing import directory, of_release, releases_in
from armvm.images.reference import CatalogReference
from armvm.images.trust.statement import Statement
from armvm.settings.system import OperatingSystem

BASE = "https://kali.download/cloud-images/"

_FOLDER = re.compile(r"kali-(\d{4}\.\d)/\Z")
_IMAGE = re.compile(r"kali-linux-(\d{4}\.\d)-cloud-genericcloud-arm64\.tar\.xz\Z")


@dataclass(frozen=True, kw_only=True)
class Kali:
    """Kali's images on a server with the layout of kali.download's ``cloud-images/``."""

    base: str = BASE
    name: str = "kali"
    variants: tuple[str, ...] = ()
    usual_variant: str | None = None
    signed: bool = False

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find the image of a version (``2026.2``); ``latest`` is the newest."""
        check_variant(self, reference)
        version = reference.release
        if version == "latest":
            version = self._versions(ask)[0]
        place = f"{self.base}kali-{version}/"
        name = f"kali-linux-{version}-cloud-genericcloud-arm64.tar.xz"
        names = of_release(
            ask,
            place,
            reference=reference,
            version=version,
            known=lambda: self._versions(ask),
            images=lambda names: [one for one in names if one == name],
        )
        if reference.serial is not None or name not in names:
            no_such_serial(reference, version, [])
        return Found(
            location=place + name,
            name=name,
            version=version,
            system=OperatingSystem(distro=self.name, version=version),
            statement=Statement(url=f"{place}SHA256SUMS"),
        )

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List the newest version, or every one."""
        versions = self._versions(ask)
        offers = []
        for version in versions if every else versions[:1]:
            offers += offers_of(self.name, version, [""], every=every)
        return offers

    def means(self, release: str, version: str) -> bool:
        """A version matches itself; latest matches any."""
        return release in (version, "latest")

    def usual(self) -> list[str]:
        """Common releases."""
        return [f"{self.name}:latest"]

    def _versions(self, ask: Asking) -> list[str]:
        """Return the versions, newest first. Raises FetchFailed if there are none."""
        found = [match[1] for match in map(_FOLDER.match, directory(ask, self.base)) if match]
        return releases_in(sorted(found, key=numbers, reverse=True), self.base, self.name)


def system_of(name: str) -> OperatingSystem | None:
    """Return the version in an image's file name; None for other files."""
    match = _IMAGE.match(name)
    return match and OperatingSystem(distro="kali", version=match[1])
