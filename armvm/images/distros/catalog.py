"""What a catalog is: it finds an image by its reference, and lists what there is.

A catalog reads documents (an index, a directory, a manifest) that say which image is meant and
who promises its digest; whether that promise is signed is the statement's affair. All documents
are hostile: whatever they say, no location outside the catalog's own tree comes out of them.
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
    """Where an image is, and who promises what its bytes are.

    ``location`` is its URL, ``name`` its file name in the statement. ``version`` is what the
    reference is called by from now on (``24.04`` where ``lts`` was asked for); ``serial`` is the
    image's own, None where nothing tells; ``pinned`` says that it was asked for. ``size`` is in
    bytes, None where not known.
    ``digest`` is what the catalog itself says; ``statement`` is the document to be checked
    (None: there is none, and the catalog's word stands alone), and ``read`` returns the image's
    digest from that document, where it is not found by ``name``. A catalog whose own documents
    are the signed ones has checked them already: then ``verified`` and ``signer`` say what
    vouches for ``digest``.
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
        """Return the digest (``sha256:…``, ``sha512:…``) that the statement's document promises.

        Raises FetchFailed when it has none for this image, or another than the catalog has.
        """
        digest = self.read(document) if self.read else digests(document).get(self.name)
        if digest is None or not _DIGEST.match(digest):
            raise FetchFailed(
                f"the checksum document has no digest for {self.name}",
                hint="try again later: the server may be publishing a new image just now",
            )
        kind = digest.partition(":")[0]
        if self.digest and self.digest.startswith(kind) and self.digest != digest:
            raise FetchFailed(
                f"the catalog and the checksum document disagree about {self.name}",
                detail=f"catalog   {self.digest}\nchecksums {digest}",
                hint="try again later; if it stays so, do not trust this mirror",
            )
        return digest


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An image that a catalog has: a line of ``image list --remote``.

    ``reference`` is what to write to get it. ``title`` is for people (a codename), ``size`` is
    in bytes, None where the catalog does not say.
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
    """Return the offers for a release's *serials* (the newest first): the first alone, or all."""
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
    """How a catalog asks servers, and what must vouch for what they say (see attest())."""

    web: Web
    progress: Progress = field(default_factory=Quiet)
    verify: Verify | None = None
    keys: KeyStore = field(default_factory=lambda: KeyStore.default())


class Catalog(Protocol):
    """A distribution's images, or a user's own."""

    @property
    def name(self) -> str:
        """What stands before the colon of a reference."""

    @property
    def variants(self) -> tuple[str, ...]:
        """The words that may follow ``@``."""

    @property
    def usual_variant(self) -> str | None:
        """The one of them that is meant without any; None where that has no name."""

    @property
    def signed(self) -> bool:
        """Whether a signature vouches for its images: what is asked for unless less is."""

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find the image meant; reads documents, not the image.

        Raises NotFound (which names some that exist), Unreachable, FetchFailed, ConfigError, and
        what attest() raises.
        """

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """Return the newest image of each release, or *every* serial and variant.

        Raises Unreachable and FetchFailed.
        """

    def means(self, release: str, version: str) -> bool:
        """Tell, without asking a server, whether *release* may stand for *version*."""

    def usual(self) -> list[str]:
        """Return references worth offering without asking a server."""


def check_variant(catalog: Catalog, reference: CatalogReference) -> str | None:
    """Return a reference's variant, None for the usual one. Raises ConfigError for another."""
    variant = reference.variant
    if variant is not None and variant not in catalog.variants:
        known = ", ".join(f"@{one}" for one in catalog.variants)
        raise ConfigError(
            f"{catalog.name} has no variant {variant!r}",
            hint=f"it has {known}" if known else f"write {catalog.name}:{reference.release}",
        )
    return None if variant == catalog.usual_variant else variant


def no_such_release(reference: CatalogReference, known: Iterable[str]) -> NoReturn:
    """Raise NotFound for a release, naming those that are *known* (the newest first)."""
    names = [catalog_text(reference.distro, one) for one in known][:6]
    raise NotFound(
        f"there is no release {reference.release!r} for arm64 in the catalog of {reference.distro}",
        hint=f"it has: {', '.join(names)}" if names else "armvm image list --remote",
    )


def no_such_serial(reference: CatalogReference, version: str, known: Iterable[str]) -> NoReturn:
    """Raise NotFound for a release's serial, naming those that are *known* (the newest first)."""
    some = ", ".join(list(known)[:5])
    asked = f"{version} with the serial {reference.serial}" if reference.serial else version
    variant = f" (@{reference.variant})" if reference.variant else ""
    raise NotFound(
        f"the catalog of {reference.distro} has no arm64 image of {asked}{variant}",
        hint=f"it has these serials, among others: {some}" if some else "armvm image list --remote",
    )


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers in a version or a serial, for comparing: ``3.20.3-r0`` is 3, 20, 3, 0."""
    return tuple(int(part) for part in re.findall(r"[0-9]{1,15}", text))
