"""Catalogs in simplestreams format: Ubuntu's three trees, and the user's own.

Ubuntu's (https://cloud-images.ubuntu.com/; simplestreams.py parses the documents): released images
below ``releases/``, daily ones below ``daily/``, minimal ones below ``minimal/releases/``. Every
``.json`` has an ``.sjson`` beside it, the same document clear-signed; signed_streams.py verifies
Ubuntu's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from armvm.base.errors import NotFound
from armvm.images.distros import signed_streams, simplestreams
from armvm.images.distros.catalog import Asking, Found, Offer, check_variant
from armvm.images.distros.simplestreams import CatalogImage
from armvm.images.fetch import documents
from armvm.images.fetch.http import Missing
from armvm.images.model import Verified
from armvm.images.reference import CatalogReference, catalog_text
from armvm.images.trust.openpgp import Key
from armvm.images.trust.statement import Statement
from armvm.settings.system import CODENAMES, OperatingSystem

#: The key of the default tree.
USUAL = ""


@dataclass(frozen=True, kw_only=True)
class Streams:
    """A simplestreams catalog.

    ``trees`` are base URLs by variant (USUAL: the one without ``@``), each ending in a slash.
    ``keys`` may sign it; empty if it is not signed. ``contents`` is the content id in each
    variant's products file; without it (a user's own catalog), the unsigned documents select the
    image, and the signed one must have the same digest for it.
    """

    name: str
    trees: Mapping[str, str]
    distro: str
    keys: tuple[Key, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)

    @property
    def variants(self) -> tuple[str, ...]:
        """The named trees."""
        return tuple(one for one in self.trees if one != USUAL)

    @property
    def usual_variant(self) -> str | None:
        """None: the default images are without a variant."""
        return None

    @property
    def signed(self) -> bool:
        """Whether it has signing keys."""
        return bool(self.keys)

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find an image by version, codename, alias and serial."""
        variant = check_variant(self, reference)
        try:
            found = self._find(reference, variant, ask)
        except NotFound as error:
            if reference.release == "devel" and not variant and "daily" in self.trees:
                hint = f"the release in development is {self.name}:devel@daily"
                raise NotFound(error.message, hint=hint) from error
            raise
        return found

    def _find(self, reference: CatalogReference, variant: str | None, ask: Asking) -> Found:
        base = self.trees[variant or USUAL]
        pinned = reference.serial is not None
        if self.contents:
            checked = signed_streams.find(
                ask.web,
                base,
                release=reference.release,
                serial=reference.serial,
                policy=ask.verify,
                keys=ask.keys,
                pinned=self.keys,
                progress=ask.progress,
                content=self.contents[variant or USUAL],
            )
            return self._found(
                base,
                checked.image,
                variant,
                pinned,
                verified=checked.verified,
                signer=checked.signer,
            )
        path, products = self._products(base, ask)
        image = simplestreams.select(products, release=reference.release, serial=reference.serial)
        return self._found(base, image, variant, pinned, statement=self._statement(base, path))

    def _found(
        self,
        base: str,
        image: CatalogImage,
        variant: str | None,
        pinned: bool,
        *,
        statement: Statement | None = None,
        verified: Verified | None = None,
        signer: str | None = None,
    ) -> Found:
        return Found(
            location=base + image.path,
            name=unquote(image.path.rpartition("/")[2]),
            version=image.version,
            system=OperatingSystem(distro=self.distro, version=image.version),
            serial=image.serial,
            variant=variant,
            pinned=pinned,
            size=image.size,
            digest=image.digest,
            statement=statement,
            read=(lambda document: _digest_in(document, image)) if statement else None,
            verified=verified,
            signer=signer,
        )

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List the newest image of each release, or all images of all trees."""
        offers = []
        for variant, base in self.trees.items():
            if variant != USUAL and not every:
                continue
            seen: set[str] = set()
            try:
                products = self._products(base, ask)[1]
            except Missing:
                if variant == USUAL:
                    raise
                continue  # mirrors may lack trees
            for image in simplestreams.images(products):
                if every or image.version not in seen:
                    seen.add(image.version)
                    offers.append(
                        Offer(
                            reference=catalog_text(
                                self.name,
                                image.version,
                                serial=image.serial if every else None,
                                variant=variant or None,
                            ),
                            version=image.version,
                            serial=image.serial,
                            variant=variant or None,
                            title=image.codename,
                            size=image.size,
                        )
                    )
        return offers

    def means(self, release: str, version: str) -> bool:
        """Versions and codenames match themselves; lts and default match any LTS release."""
        if release in ("lts", "default"):
            year, _, month = version.partition(".")
            return month == "04" and year.isdigit() and int(year) % 2 == 0
        return version == CODENAMES.get(self.distro, {}).get(release, release)

    def usual(self) -> list[str]:
        """Common releases and variants."""
        names = [f"{self.name}:{one}" for one in ("26.04", "24.04", "22.04", "lts", "devel@daily")]
        return (
            [*names, *(f"{self.name}:lts@{one}" for one in self.variants)] if self.contents else []
        )

    def _products(self, base: str, ask: Asking) -> tuple[str, bytes]:
        """Return the path of a tree's products file, and the file."""
        index = documents.document(ask.web, base + simplestreams.INDEX_PATH, progress=ask.progress)
        path = simplestreams.products_path(index)
        return path, documents.document(ask.web, base + path, progress=ask.progress)

    def _statement(self, base: str, path: str) -> Statement | None:
        if not self.keys:
            return None
        url = f"{base}{path.removesuffix('.json')}.sjson"
        return Statement(url=url, clear=True, keys=self.keys, limit=documents.MAX_DOCUMENT)


def _digest_in(document: bytes, image: CatalogImage) -> str | None:
    """Return the digest in a products file for an image at the same path."""
    for one in simplestreams.images(document):
        if (one.version, one.serial, one.path) == (image.version, image.serial, image.path):
            return one.digest
    return None
