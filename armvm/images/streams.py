"""Catalogs in simplestreams form: Ubuntu's three trees, and any that a user names.

Ubuntu's (https://cloud-images.ubuntu.com/; simplestreams.py reads the documents): released images
below ``releases/``, daily ones below ``daily/``, minimal ones below ``minimal/releases/``; beside
each image ``SHA256SUMS`` and ``SHA256SUMS.gpg``. Every ``.json`` has an ``.sjson`` beside it, the
same document clear-signed (simplestreams' documentation, "Stream format").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from armvm.errors import FetchFailed, NotFound
from armvm.images import fetch, simplestreams
from armvm.images.catalog import Found, Offer, check_variant
from armvm.images.openpgp import Key
from armvm.images.reference import CatalogReference, catalog_text
from armvm.images.simplestreams import CatalogImage
from armvm.images.statement import Statement
from armvm.images.transport import Web
from armvm.progress import Progress
from armvm.spec.system import CODENAMES, OperatingSystem

#: What stands for the tree of the usual images.
USUAL = ""


@dataclass(frozen=True, kw_only=True)
class Streams:
    """A simplestreams catalog.

    ``trees`` are base URLs by variant (USUAL: the one without ``@``), each with a slash at its
    end. ``sums`` says that there is a SHA256SUMS beside each image; otherwise ``keys`` are who
    signs the products file, if anybody does.
    """

    name: str
    trees: Mapping[str, str]
    distro: str
    keys: tuple[Key, ...] = ()
    sums: bool = False

    @property
    def variants(self) -> tuple[str, ...]:
        """The trees that have a name."""
        return tuple(one for one in self.trees if one != USUAL)

    def find(self, reference: CatalogReference, web: Web, progress: Progress) -> Found:
        """Find an image by version, codename, alias and serial."""
        variant = check_variant(self, reference)
        base = self.trees[variant or USUAL]
        path, products = self._products(base, web, progress)
        try:
            image = simplestreams.select(
                products, release=reference.release, serial=reference.serial
            )
        except NotFound as error:
            if reference.release == "devel" and not variant and "daily" in self.trees:
                hint = f"the release in development is {self.name}:devel@daily"
                raise NotFound(error.message, hint=hint) from error
            raise
        return Found(
            location=base + image.path,
            name=unquote(image.path.rpartition("/")[2]),
            version=image.version,
            system=OperatingSystem(distro=self.distro, version=image.version),
            serial=image.serial,
            variant=variant,
            pinned=reference.serial is not None,
            size=image.size,
            digest=image.digest,
            statement=self._statement(base, path, image),
            read=None if self.sums else lambda document: _digest_in(document, image),
        )

    def releases(self, web: Web, progress: Progress, *, every: bool = False) -> list[Offer]:
        """List the newest image of each release; or all, of all trees."""
        offers = []
        for variant, base in self.trees.items():
            if variant != USUAL and not every:
                continue
            seen: set[str] = set()
            try:
                products = self._products(base, web, progress)[1]
            except FetchFailed:
                if variant == USUAL:
                    raise
                continue  # mirrors need not have all trees
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
        """Versions and codenames mean themselves; lts and default, any long-term release."""
        if release in ("lts", "default"):
            year, _, month = version.partition(".")
            return month == "04" and year.isdigit() and int(year) % 2 == 0
        return version == CODENAMES.get(self.distro, {}).get(release, release)

    def usual(self) -> list[str]:
        """The releases and variants that people ask for."""
        names = [f"{self.name}:{one}" for one in ("26.04", "24.04", "22.04", "lts", "devel@daily")]
        return [*names, *(f"{self.name}:lts@{one}" for one in self.variants)] if self.sums else []

    def _products(self, base: str, web: Web, progress: Progress) -> tuple[str, bytes]:
        """Return the path of a tree's products file, and the file."""
        index = fetch.document(web, base + simplestreams.INDEX_PATH, progress=progress)
        path = simplestreams.products_path(index)
        return path, fetch.document(web, base + path, progress=progress)

    def _statement(self, base: str, path: str, image: CatalogImage) -> Statement | None:
        if self.sums:
            url = base + f"{image.path.rpartition('/')[0]}/SHA256SUMS".lstrip("/")
            return Statement(url=url, signature=f"{url}.gpg", keys=self.keys)
        if self.keys and path.endswith(".json"):
            return Statement(
                url=f"{base}{path.removesuffix('.json')}.sjson", clear=True, keys=self.keys
            )
        return None


def _digest_in(document: bytes, image: CatalogImage) -> str | None:
    """Return the digest that a products file has for an image at the same place."""
    for one in simplestreams.images(document):
        if (one.version, one.serial, one.path) == (image.version, image.serial, image.path):
            return one.digest
    return None
