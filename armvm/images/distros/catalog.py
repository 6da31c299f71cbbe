"""The interface of a catalog: it finds an image by reference, and lists its images.

A catalog reads documents (an index, a directory, a manifest) to find the image and its published
digest; the statement checks the signature. All documents are untrusted: they can never lead to a
location outside the catalog's own tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from armvm.base.errors import ConfigError, FetchFailed, NotFound
from armvm.base.progress import Progress, Quiet
from armvm.images.fetch.http import Web
from armvm.images.model import Verified
from armvm.images.reference import CatalogReference, catalog_text
from armvm.images.trust.checksums import digests
from armvm.images.trust.keyring import KeyStore
from armvm.images.trust.statement import Statement
from armvm.settings.system import OperatingSystem
from armvm.settings.verify import Verify

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The location of an image, and its published digest.

    ``location`` is its URL, ``name`` its file name in the statement. ``version`` replaces the
    release in the reference (``24.04`` for ``lts``). ``serial`` is the image's own, None if
    unknown; ``pinned`` says that the user asked for it. ``size`` is in bytes, None if unknown.
    ``digest`` is the catalog's own; ``statement`` is the document to verify (None: only the
    catalog's digest exists), and ``read`` returns the image's digest from that document if
    ``name`` does not find it. A catalog whose own documents are signed has verified them
    already: ``verified`` and ``signer`` then record how ``digest`` was verified.
    """

    location: str
    name: str
    version: str
    system: OperatingSystem
    serial: str | None = None
    variant: str | None = None
    pinned: bool = False
    size: int | None = None
    digest: str | None = None
    statement: Statement | None = None
    read: Callable[[bytes], str | None] | None = None
    verified: Verified | None = None
    signer: str | None = None

    def promised(self, document: bytes) -> str:
        """Return the digest (``sha256:…``, ``sha512:…``) in the statement's document.

        Raises FetchFailed if it has none for this image, or a different one than the catalog.
        """
        digest = self.read(document) if self.read else digests(document).get(self.name)
        if digest is None or not _DIGEST.match(digest):
            raise FetchFailed(
                f"the checksum file does not list {self.name}",
                hint="try again later: the server may be publishing a new image",
            )
        kind = digest.partition(":")[0]
        if self.digest and self.digest.startswith(kind) and self.digest != digest:
            raise FetchFailed(
                f"the catalog and the checksum file have different digests for {self.name}",
                detail=f"catalog   {self.digest}\nchecksums {digest}",
                hint="try again later; if this persists, do not trust this mirror",
            )
        return digest


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An image in a catalog: a line of ``image list --remote``.

    ``reference`` is what the user types to get it. ``title`` is for people (a codename), ``size``
    is in bytes, None if the catalog does not say.
    """

    reference: str
    version: str
    serial: str | None = None
    variant: str | None = None
    title: str = ""
    size: int | None = None


def offers_of(
    name: str,
    version: str,
    serials: Sequence[str],
    *,
    every: bool,
    variant: str | None = None,
    title: str = "",
) -> list[Offer]:
    """Return the offers for a release's *serials* (newest first): only the first, or all."""
    return [
        Offer(
            reference=catalog_text(
                name, version, serial=(serial or None) if every else None, variant=variant
            ),
            version=version,
            serial=serial or None,
            variant=variant,
            title=title,
        )
        for serial in (serials if every else serials[:1])
    ]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a catalog fetches documents, and how they must be verified (see attest())."""

    web: Web
    progress: Progress = field(default_factory=Quiet)
    verify: Verify | None = None
    keys: KeyStore = field(default_factory=lambda: KeyStore.default())


class Catalog(Protocol):
    """A distribution's images, or the user's own."""

    @property
    def name(self) -> str:
        """The part of a reference before the colon."""

    @property
    def variants(self) -> tuple[str, ...]:
        """The words allowed after ``@``."""

    @property
    def usual_variant(self) -> str | None:
        """The default variant; None if it is unnamed."""

    @property
    def signed(self) -> bool:
        """Whether its images are signed; then a signature is required by default."""

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find an image; reads documents, not the image.

        Raises NotFound (with some that exist), Unreachable, FetchFailed, ConfigError, and
        the errors of attest().
        """

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """Return the newest image of each release, or *every* serial and variant.

        Raises Unreachable and FetchFailed.
        """

    def means(self, release: str, version: str) -> bool:
        """Return whether *release* may mean *version*, without asking a server."""

    def usual(self) -> list[str]:
        """Return common references, without asking a server."""


def check_variant(catalog: Catalog, reference: CatalogReference) -> str | None:
    """Return a reference's variant, None for the default. Raises ConfigError if unknown."""
    variant = reference.variant
    if variant is not None and variant not in catalog.variants:
        known = ", ".join(f"@{one}" for one in catalog.variants)
        raise ConfigError(
            f"unknown variant {variant!r} of {catalog.name}",
            hint=f"known: {known}" if known else f"write {catalog.name}:{reference.release}",
        )
    return None if variant == catalog.usual_variant else variant


def no_such_release(reference: CatalogReference, known: Iterable[str]) -> NoReturn:
    """Raise NotFound for a release, with the *known* ones (newest first)."""
    names = [catalog_text(reference.distro, one) for one in known][:6]
    raise NotFound(
        f"release {reference.release!r} not found for arm64 in the catalog of {reference.distro}",
        hint=f"known: {', '.join(names)}" if names else "armvm image list --remote",
    )


def no_such_serial(reference: CatalogReference, version: str, known: Iterable[str]) -> NoReturn:
    """Raise NotFound for a release's serial, with the *known* ones (newest first)."""
    some = ", ".join(list(known)[:5])
    asked = f"{version} with serial {reference.serial}" if reference.serial else version
    variant = f" (@{reference.variant})" if reference.variant else ""
    raise NotFound(
        f"arm64 image of {asked}{variant} not found in the catalog of {reference.distro}",
        hint=f"available serials include: {some}" if some else "armvm image list --remote",
    )


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers in a version or serial, for sorting: ``3.20.3-r0`` is 3, 20, 3, 0."""
    return tuple(int(part) for part in re.findall(r"[0-9]{1,15}", text))
