"""Alpine's cloud images: NoCloud, UEFI, with cloud-init.

The layout of https://dl-cdn.alpinelinux.org/alpine/ (Alpine's "Cloud Image Builder" README for
the names, Lima's hack/update-template-alpine.sh for the tree)::

    v3.22/releases/cloud/nocloud_alpine-3.22.1-aarch64-uefi-cloudinit-r0.qcow2
    v3.22/releases/cloud/nocloud_alpine-3.22.1-aarch64-uefi-cloudinit-r0.qcow2.sha512

The directory lists the newest point release; ``3.22.1-r0`` is the serial of the release 3.22.
The ``.sha512`` is the digest alone, without a name. ``latest-stable/`` is the newest release.
No signing key is known: the images are verified only by the server's TLS certificate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
from armvm.images.trust.checksums import digests
from armvm.images.trust.statement import Statement
from armvm.settings.system import OperatingSystem

BASE = "https://dl-cdn.alpinelinux.org/alpine/"

#: The oldest release with cloud images.
OLDEST = (3, 19)

#: Number of releases to list by default: as many as Alpine supports.
LISTED = 4

_IMAGE = re.compile(
    r"nocloud_alpine-(\d+\.\d+\.\d+)-aarch64-uefi-cloudinit(?:-vm)?-r(\d+)\.qcow2\Z"
)
_FOLDER = re.compile(r"v(\d+\.\d+)/\Z")
_RELEASE = re.compile(r"(\d+\.\d+)(?:\.\d+)?\Z")


@dataclass(frozen=True, kw_only=True)
class Alpine:
    """Alpine's images on a server with the layout of dl-cdn's ``alpine/``."""

    base: str = BASE
    name: str = "alpine"
    variants: tuple[str, ...] = ()
    usual_variant: str | None = None
    signed: bool = False

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find an image by release (``3.22``), point release (``3.22.1``), ``latest``, serial."""
        check_variant(self, reference)
        asked = reference.release
        if asked == "latest":
            asked = next(iter(self._versions(ask)), "")
        match = _RELEASE.match(asked)
        if match is None:
            no_such_release(reference, self._versions(ask))
        version, place = match[1], self._place(match[1])
        names = of_release(
            ask,
            place,
            reference=reference,
            version=version,
            known=lambda: self._versions(ask),
            images=lambda names: _images(names, version),
        )
        images = _images(names, version)
        serials = sorted(images, key=numbers, reverse=True)
        point = [one for one in serials if asked in (version, one.partition("-")[0])]
        serial = reference.serial or next(iter(point), "")
        if serial not in point:
            no_such_serial(reference, asked, serials)
        name = images[serial]
        return Found(
            location=place + name,
            name=name,
            version=version,
            system=OperatingSystem(distro="alpine", version=version),
            serial=serial,
            pinned=reference.serial is not None or asked != version,
            statement=Statement(url=f"{place}{name}.sha512"),
            read=lambda document: _only(document, name),
        )

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List the newest releases, each with its newest image, or every image."""
        offers = []
        versions = self._versions(ask)
        for version in versions if every else versions[:LISTED]:
            # None: a release without cloud images yet.
            names = directory_if_any(ask, self._place(version))
            serials = sorted(_images(names, version), key=numbers, reverse=True)
            offers += offers_of("alpine", version, serials, every=every)
        return offers

    def means(self, release: str, version: str) -> bool:
        """A release matches itself; latest matches any."""
        return release in (version, "latest")

    def usual(self) -> list[str]:
        """Common releases."""
        return ["alpine:latest", "alpine:3.23", "alpine:3.22"]

    def _place(self, version: str) -> str:
        return f"{self.base}v{version}/releases/cloud/"

    def _versions(self, ask: Asking) -> list[str]:
        folders = map(_FOLDER.match, directory(ask, self.base))
        found = [folder[1] for folder in folders if folder and numbers(folder[1]) >= OLDEST]
        return releases_in(sorted(found, key=numbers, reverse=True), self.base, self.name)


def system_of(name: str) -> OperatingSystem | None:
    """Return the release in an image's file name; None for other files."""
    match = _IMAGE.match(name)
    return match and OperatingSystem(distro="alpine", version=match[1].rpartition(".")[0])


def _images(names: list[str], version: str) -> dict[str, str]:
    """Return the serials (``3.22.1-r0``) of a release, with the names of the images."""
    matches = [match for match in map(_IMAGE.match, names) if match]
    return {
        f"{match[1]}-r{match[2]}": match[0]
        for match in matches
        if match[1].rpartition(".")[0] == version
    }


def _only(document: bytes, name: str) -> str | None:
    """Return the digest in a one-line document, if it has this file's name or none."""
    found = digests(document)
    return found.get(name) or (found.get("") if len(found) == 1 else None)
