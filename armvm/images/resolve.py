"""Find an image by its reference, and get its verified file.

``resolve`` and ``locate`` only search; ``obtain`` (in its own module) gets the bytes. Whatever
differs between hosts and tests (mirror, timeouts, HTTP session, cache, builder) is an argument.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from armvm.base.errors import Unreachable
from armvm.base.progress import Progress, Quiet
from armvm.images import local_file
from armvm.images.cache.entry import Entry
from armvm.images.cache.store import Cache
from armvm.images.check import formats
from armvm.images.distros import catalogs
from armvm.images.distros.catalog import Asking, Catalog, Found, numbers
from armvm.images.fetch.http import Web
from armvm.images.model import FromImage, Verified
from armvm.images.obtain import LOCAL, obtain
from armvm.images.reference import (
    CatalogReference,
    FileReference,
    Reference,
    UrlReference,
    catalog_text,
    parse,
)
from armvm.images.trust.keyring import KeyStore
from armvm.images.trust.openpgp import Key
from armvm.images.trust.pinned import UBUNTU
from armvm.images.trust.provenance import require, satisfies
from armvm.images.trust.statement import attest
from armvm.settings.catalogs import ImageConfig, OwnCatalog, image_config
from armvm.settings.verify import Verify

__all__ = ["Settings", "locate", "obtain", "resolve"]

#: Catalog verifications: only such images may replace one from an unreachable catalog.
_VOUCHED = (Verified.SIGNATURE, Verified.CATALOG)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sources of images, how to ask servers, and how images must be verified.

    ``mirrors`` are base URLs by distribution, ``own`` the user's own catalogs. ``verify`` is the
    minimum verification, None for the strongest that a source offers. ``pinned`` are the keys
    that may sign Ubuntu's catalog, whichever mirror serves it.
    """

    mirrors: Mapping[str, str] = field(default_factory=dict)
    own: tuple[OwnCatalog, ...] = ()
    web: Web = field(default_factory=Web)
    verify: Verify | None = None
    keys: KeyStore = field(default_factory=KeyStore.default)
    pinned: tuple[Key, ...] = UBUNTU

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str] = os.environ,
        *,
        files: Sequence[Path] = (),
        web: Web | None = None,
        verify: Verify | None = None,
    ) -> Settings:
        """Return the settings in the environment and the configuration *files*.

        These are mirrors (``ARMVM_MIRROR_*``), catalogs and key servers; the caller decides
        *verify*. Raises ConfigError and PermissionDenied.
        """
        config = image_config(environ, files)
        return cls(
            mirrors=config.mirrors,
            own=config.own,
            web=web or Web(),
            verify=verify,
            keys=KeyStore.default(environ, files),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all catalogs."""
        return catalogs.names(ImageConfig(own=self.own))

    def catalog(self, name: str) -> Catalog:
        """Return a catalog by name."""
        config = ImageConfig(mirrors=self.mirrors, own=self.own)
        return catalogs.catalog(name, config, ubuntu_keys=self.pinned)

    def catalogs(self) -> dict[str, Catalog]:
        """Return all catalogs by name, in display order."""
        return {name: self.catalog(name) for name in self.names}

    def asking(self, progress: Progress) -> Asking:
        """Return how catalogs fetch and verify documents."""
        return Asking(web=self.web, progress=progress, verify=self.verify, keys=self.keys)


def resolve(
    text: str,
    settings: Settings,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
    cwd: Path | None = None,
) -> FromImage:
    """Parse an image reference and find its image; see parse() and locate()."""
    reference = parse(text, cwd=cwd, catalogs=settings.names)
    return locate(reference, settings, cache=cache, progress=progress)


def locate(
    reference: Reference,
    settings: Settings,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> FromImage:
    """Find a reference's image. Reads the catalog, or the parts of a file needed to check it.

    With a *cache*, an unreachable catalog is not an error if the cache has an image of that
    release whose verification suffices: the newest is used, with a warning.

    Raises NotFound, Unreachable, FetchFailed, SignatureInvalid, NotVerified, ImageError,
    ConfigError, PermissionDenied.
    """
    news = progress or Quiet()
    if isinstance(reference, CatalogReference):
        try:
            return _from_catalog(reference, settings, news)
        except Unreachable as error:
            known = cache and _fallback(reference, settings, cache)
            if not known:
                raise
            serial = f" {known.serial}" if known.serial else ""
            news.warn(f"{error.message}; using {known.reference}{serial} from the cache")
            return known
    if isinstance(reference, FileReference):
        local_file.look(reference.path)
        formats.refuse_foreign(reference.path.name)
        _, size, virtual_size = local_file.examine(reference.path)
        if reference.digest and cache:
            local_file.digest_of(reference.path, reference.digest, cache=cache, progress=news)
        source = _source(reference, str(reference.path), reference.path.name, size)
        return replace(source, virtual_size=virtual_size)
    if isinstance(reference, UrlReference):
        name = PurePosixPath(unquote(urlsplit(reference.url).path)).name
        formats.refuse_foreign(name)
        return require(_source(reference, reference.url, name, None), settings.verify)
    return FromImage(
        reference=reference.text,
        location=LOCAL + reference.name,
        system=formats.guess_system(reference.name),
        verified=Verified.BUILT,
    )


def _from_catalog(reference: CatalogReference, settings: Settings, progress: Progress) -> FromImage:
    ask = settings.asking(progress)
    found = settings.catalog(reference.distro).find(reference, ask)
    digest, verified, signer = _promise(found, ask)
    # Without verification, the catalog's digest need not be enforced.
    binding = settings.verify is not Verify.NONE
    source = FromImage(
        # Not the release as typed: ubuntu:lts means another release in two years.
        reference=catalog_text(
            reference.distro,
            found.version,
            serial=found.serial if found.pinned else None,
            variant=found.variant,
        ),
        location=found.location,
        digest=digest if binding else None,
        size=found.size if binding else None,
        system=found.system,
        serial=found.serial,
        verified=verified if binding else Verified.NOTHING,
        signer=signer,
    )
    if digest is None and binding:
        progress.warn(f"{source.reference} cannot be verified: its catalog publishes no checksums")
    return require(source, settings.verify)


def _promise(found: Found, ask: Asking) -> tuple[str | None, Verified, str | None]:
    """Return an image's promised digest, how the promise was verified, and its signer."""
    if found.verified is not None:
        return found.digest, found.verified, found.signer
    if found.statement is None:
        return found.digest, Verified.CATALOG if found.digest else Verified.NOTHING, None
    attested = attest(
        ask.web, found.statement, policy=ask.verify, keys=ask.keys, progress=ask.progress
    )
    return found.promised(attested.document), attested.verified, attested.signer


def _fallback(reference: CatalogReference, settings: Settings, cache: Cache) -> FromImage | None:
    """Return the newest image in the cache that matches a reference.

    It is not verified again now, so its recorded verification must satisfy the policy; the default
    is the catalog's own.
    """
    catalog = settings.catalog(reference.distro)
    wanted = settings.verify or (Verify.SIGNATURE if catalog.signed else Verify.DIGEST)
    found = [
        entry
        for entry in cache.entries()
        if _stands_for(entry, reference, catalog) and satisfies(entry.verified, wanted)
    ]
    if not found:
        return None
    newest = max(found, key=_age)
    version = newest.system.version if newest.system else ""
    return FromImage(
        reference=catalog_text(
            reference.distro, version, serial=reference.serial, variant=_variant(newest)
        ),
        location=newest.location,
        digest=newest.digest,
        size=newest.size if newest.content == newest.digest else None,
        system=newest.system,
        serial=newest.serial,
        verified=newest.verified,
        signer=getattr(newest, "signer", None),
    )


def _age(entry: Entry) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    version = entry.system.version if entry.system else ""
    return numbers(version), numbers(entry.serial or ""), entry.stored


def _stands_for(entry: Entry, reference: CatalogReference, catalog: Catalog) -> bool:
    """Return whether a cached image matches *reference*, as far as known offline."""
    name = entry.reference.partition(":")[0]
    return (
        entry.verified in _VOUCHED
        and entry.system is not None
        and name == reference.distro
        and _variant(entry)
        == (None if reference.variant == catalog.usual_variant else reference.variant)
        and reference.serial in (None, entry.serial)
        and catalog.means(reference.release, entry.system.version)
    )


def _variant(entry: Entry) -> str | None:
    return entry.reference.partition("@")[2] or None


def _source(
    reference: FileReference | UrlReference, location: str, name: str, size: int | None
) -> FromImage:
    return FromImage(
        reference=reference.text,
        location=location,
        digest=reference.digest,
        size=size,
        system=catalogs.system_of(name),
        verified=Verified.GIVEN if reference.digest else Verified.NOTHING,
    )
