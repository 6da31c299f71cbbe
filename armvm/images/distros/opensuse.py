"""openSUSE's Minimal-VM images for clouds: Leap and Tumbleweed.

The layout of https://download.opensuse.org/ (Lima's hack/update-template-opensuse.sh; names and
the format of the ``.sha256`` as recorded by kubevirt/containerdisks)::

    distribution/leap/16.0/appliances/Leap-16.0-Minimal-VM.aarch64-Cloud-Build18.7.qcow2
    distribution/leap/15.6/appliances/openSUSE-Leap-15.6-Minimal-VM.aarch64-15.6.0-Cloud-Build16.30.qcow2
    ports/aarch64/tumbleweed/appliances/
        openSUSE-Tumbleweed-Minimal-VM.aarch64-1.0.0-Cloud-Snapshot20260207.qcow2

Each has a ``.sha256`` and its signature ``.sha256.asc`` beside it, and a link without the build
number. The build (``18.7``) or snapshot (``20260207``) is the serial.
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
from armvm.images.trust.openpgp import Key
from armvm.images.trust.pinned import OPENSUSE
from armvm.images.trust.statement import Statement
from armvm.settings.system import OperatingSystem

BASE = "https://download.opensuse.org/"
ROLLING = "tumbleweed"

_IMAGE = re.compile(
    r"(?:openSUSE-)?(?P<version>Leap-\d+\.\d+|Tumbleweed)-Minimal-VM\.aarch64"
    r"(?:-\d+\.\d+\.\d+)?-Cloud(?:-(?:Build|Snapshot)(?P<serial>\d+(?:\.\d+)*))?\.qcow2\Z"
)
_LEAP = re.compile(r"\d{2}\.\d\Z")


@dataclass(frozen=True, kw_only=True)
class OpenSuse:
    """openSUSE's images on a server with the layout of download.opensuse.org."""

    base: str = BASE
    name: str = "opensuse"
    variants: tuple[str, ...] = ()
    usual_variant: str | None = None
    signed: bool = True
    keys: tuple[Key, ...] = OPENSUSE

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find an image of Leap (``16.0``; ``leap`` is the newest) or ``tumbleweed``."""
        check_variant(self, reference)
        version = reference.release
        if version in ("leap", "latest"):
            version = next(iter(self._leaps(ask)), "")
        if version != ROLLING and not _LEAP.match(version):
            no_such_release(reference, [*self._leaps(ask), ROLLING])
        place = self._place(version)
        names = of_release(
            ask,
            place,
            reference=reference,
            version=version,
            known=lambda: [*self._leaps(ask), ROLLING],
            images=lambda names: _images(names, version),
        )
        images = _images(names, version)
        serials = sorted(filter(None, images), key=numbers, reverse=True)
        # If no builds are listed, use the link without a build in its name.
        serial = reference.serial or next(iter(serials), "")
        if serial not in images:
            no_such_serial(reference, version, serials)
        name = images[serial]
        return Found(
            location=place + name,
            name=name,
            version=version,
            system=OperatingSystem(distro="opensuse", version=version),
            serial=serial or None,
            pinned=reference.serial is not None,
            statement=Statement(
                url=f"{place}{name}.sha256",
                signature=f"{place}{name}.sha256.asc",
                keys=self.keys,
            ),
            read=lambda document: digest_in(document, name, version, serial),
        )

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List Tumbleweed and the Leap releases with their newest image, or every image."""
        offers = []
        for version in [ROLLING, *self._leaps(ask)]:
            # None: a Leap release without cloud images for arm64.
            names = directory_if_any(ask, self._place(version))
            images = _images(names, version)
            serials = sorted(filter(None, images), key=numbers, reverse=True)
            if not serials and images:
                serials = [""]
            title = "Tumbleweed" if version == ROLLING else "Leap"
            offers += offers_of("opensuse", version, serials, every=every, title=title)
        return offers

    def means(self, release: str, version: str) -> bool:
        """Versions match themselves; leap matches any but tumbleweed."""
        return release == version or (release in ("leap", "latest") and version != ROLLING)

    def usual(self) -> list[str]:
        """Common releases."""
        return ["opensuse:leap", "opensuse:16.0", "opensuse:15.6", "opensuse:tumbleweed"]

    def _place(self, version: str) -> str:
        if version == ROLLING:
            return f"{self.base}ports/aarch64/tumbleweed/appliances/"
        return f"{self.base}distribution/leap/{version}/appliances/"

    def _leaps(self, ask: Asking) -> list[str]:
        url = f"{self.base}distribution/leap/"
        folders = directory(ask, url)
        found = [name.rstrip("/") for name in folders if name.endswith("/")]
        leaps = sorted(filter(_LEAP.match, found), key=numbers, reverse=True)
        return releases_in(leaps, url, self.name)


def system_of(name: str) -> OperatingSystem | None:
    """Return the version in an image's file name; None for other files."""
    match = _IMAGE.match(name)
    version = match and match["version"].removeprefix("Leap-").lower()
    return OperatingSystem(distro="opensuse", version=version) if version else None


def _images(names: list[str], version: str) -> dict[str, str]:
    """Return serials with the names of the images; "" for the name without a build."""
    wanted = "Tumbleweed" if version == ROLLING else f"Leap-{version}"
    matches = [match for match in map(_IMAGE.match, names) if match]
    return {match["serial"] or "": match[0] for match in matches if match["version"] == wanted}


def digest_in(document: bytes, name: str, version: str, serial: str) -> str | None:
    """Return the digest of the image *name* in a ``.sha256`` file.

    The checksum file of the link (*serial* "") may contain the name with the build.
    """
    # Leap 15.6's has one space between digest and name; sha256sum writes two.
    found = digests(re.sub(rb"(?m)^([0-9a-fA-F]{64}) (?=[^ *])", rb"\1  ", document))
    if serial or name in found:
        return found.get(name)
    others = [digest for other, digest in found.items() if _images([other], version)]
    return others[0] if len(others) == 1 else None
