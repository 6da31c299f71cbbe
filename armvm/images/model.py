"""What an image is: what a plan needs to know of it (ImageSource), and its file (Image)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from armvm.settings.system import OperatingSystem


class Verified(enum.Enum):
    """What vouches for an image's bytes; kept in the domain's metadata."""

    SIGNATURE = "signature"  #: a signature by one of the distribution's keys (see pinned)
    CATALOG = "catalog-digest"  #: the digest in the distribution's catalog, fetched over HTTP(S)
    GIVEN = "given-digest"  #: the digest the user gave with the reference
    BUILT = "built-here"  #: built on this host from signed packages
    NOTHING = "none"  #: nothing: a file or a URL without a digest


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """An image before its bytes are here: all that a plan needs to know.

    ``digest`` is ``sha256:`` and 64 hex digits or ``sha512:``
    and 128, whichever was promised, or None where nobody has promised one. ``size`` is in bytes,
    None where not known. ``signer`` is the fingerprint of the pinned key whose signature vouches
    for it, where one does. ``tuned_from`` is the digest of the image that a tuned one was made of;
    the other fields are that image's then. ``virtual_size`` is the guest disk's, in bytes, where
    the image is a file on this host.
    """

    reference: str
    digest: str | None = None
    size: int | None = None
    system: OperatingSystem | None = None
    serial: str | None = None
    verified: Verified = Verified.NOTHING
    signer: str | None = None
    tuned_from: str | None = None
    virtual_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class FromImage(ImageSource):
    """An image that can be obtained: fetched, built, or read from a file.

    ``location`` is a URL, an absolute path or ``local:NAME``; a URL can hold a password or a
    token, so show ``reference`` instead.
    """

    location: str


@dataclass(frozen=True, kw_only=True)
class Image:
    """A verified local file: qcow2 without backing file, ready to become a base.

    ``digest`` is the sha256 of the image as it was published, whatever was promised (a raw image
    is converted afterwards, a packed one unpacked); ``size`` is the local file's size and
    ``virtual_size`` the guest disk's, both in bytes.
    """

    source: ImageSource
    path: Path
    digest: str
    size: int
    virtual_size: int
