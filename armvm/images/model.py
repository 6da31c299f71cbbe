"""Images: what a plan needs to know of one (ImageSource), and the verified file (Image)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from armvm.settings.system import OperatingSystem


class Verified(enum.Enum):
    """How an image's bytes were verified; kept in the domain's metadata."""

    SIGNATURE = "signature"  #: a signature by one of the distribution's keys (see pinned)
    CATALOG = "catalog-digest"  #: the digest in the distribution's catalog, fetched over HTTP(S)
    GIVEN = "given-digest"  #: the digest that the user gave with the reference
    BUILT = "built-here"  #: built on this host from signed packages
    NOTHING = "none"  #: not verified: a file or a URL without a digest


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """An image before it is downloaded: everything that a plan needs.

    ``digest`` is the published one, ``sha256:`` and 64 hex digits or ``sha512:`` and 128, or None
    if there is none. ``size`` is in bytes, None if unknown. ``signer`` is the fingerprint of the
    pinned key that signed it, if one did. ``tuned_from`` is the digest of the image that a tuned
    one was made of; the other fields then describe that image. ``packages`` are the names of those
    that armvm adds to the image, sorted. ``virtual_size`` is the guest disk's, in bytes, if the
    image is a file on this host.
    """

    reference: str
    digest: str | None = None
    size: int | None = None
    system: OperatingSystem | None = None
    serial: str | None = None
    verified: Verified = Verified.NOTHING
    signer: str | None = None
    tuned_from: str | None = None
    packages: tuple[str, ...] = ()
    virtual_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class FromImage(ImageSource):
    """An image that can be obtained: fetched, built, or read from a file.

    ``location`` is a URL, an absolute path or ``local:NAME``; a URL can contain a password or a
    token, so show ``reference`` instead.
    """

    location: str


@dataclass(frozen=True, kw_only=True)
class FromMedium(ImageSource):
    """An installer's ISO at *path*: the machine's disk is empty."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class Image:
    """A verified local file: qcow2 without backing file, ready to become a base.

    ``digest`` is the sha256 of the published image, whichever digest was published (a raw image
    is converted afterwards, a packed one unpacked); ``size`` is the local file's size and
    ``virtual_size`` the guest disk's, both in bytes.
    """

    source: ImageSource
    path: Path
    digest: str
    size: int
    virtual_size: int
