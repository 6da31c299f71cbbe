"""The images room's front door: a reference becomes a source, and a source a verified file.

``resolve`` and ``locate`` only look; ``obtain`` (in its own module) brings the bytes. What
differs between hosts and tests (mirror, time-outs, HTTP session, cache, builder) is handed in.
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

#: What a catalog can have vouched for: only such images stand in for one that does not answer.
_VOUCHED = (Verified.SIGNATURE, Verified.CATALOG)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where images come from, how servers are asked, and what has to vouch for an image.

    ``mirrors`` are base URLs by distribution, ``own`` the user's own catalogs. ``verify`` is the
    weakest that is accepted, None for the strongest that a source offers. ``pinned`` are the keys
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
        """Return the settings that the environment and the configuration *files* ask for.

        That is mirrors (``ARMVM_MIRROR_*``), catalogs and the key servers; *verify* is decided
        by the caller. Raises ConfigError and PermissionDenied.
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
        """Return the catalog of that name."""
        config = ImageConfig(mirrors=self.mirrors, own=self.own)
        return catalogs.catalog(name, config, ubuntu_keys=self.pinned)

    def catalogs(self) -> dict[str, Catalog]:
        """Return all catalogs by name, in the order in which they are shown."""
        return {name: self.catalog(name) for name in self.names}

    def asking(self, progress: Progress) -> Asking:
        """Return how catalogs are to ask."""
        return Asking(web=self.web, progress=progress, verify=self.verify, keys=self.keys)


def resolve(
    text: str,
    settings: Settings,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
    cwd: Path | None = None,
) -> FromImage:
    """Parse an image reference and find where its image is; see parse() and locate()."""
    reference = parse(text, cwd=cwd, catalogs=settings.names)
    return locate(reference, settings, cache=cache, progress=progress)


def locate(
    reference: Reference,
    settings: Settings,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> FromImage:
    """Find where a reference's image is. Reads the catalog, or a file as far as it is judged by.

    With a *cache*, a catalog that does not answer is no error while an image of that release is
    in it that was verified as is asked for now: the newest is taken, with a warning.

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
    # Where nothing is to be verified, the catalog's promises bind nobody.
    binding = settings.verify is not Verify.NONE
    source = FromImage(
        # Not as it was written: ubuntu:lts is another release in two years.
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
        progress.warn(f"{source.reference} cannot be verified: its catalog has no checksums")
    return require(source, settings.verify)


def _promise(found: Found, ask: Asking) -> tuple[str | None, Verified, str | None]:
    """Return the digest promised for an image, what vouches for the promise, and who signed it."""
    if found.verified is not None:
        return found.digest, found.verified, found.signer
    if found.statement is None:
        return found.digest, Verified.CATALOG if found.digest else Verified.NOTHING, None
    attested = attest(
        ask.web, found.statement, policy=ask.verify, keys=ask.keys, progress=ask.progress
    )
    return found.promised(attested.document), attested.verified, attested.signer


def _fallback(reference: CatalogReference, settings: Settings, cache: Cache) -> FromImage | None:
    """Return the newest image in the cache that is what a reference asks for.

    Nobody attests it again now, so it must have been verified as is asked for now: by default, as
    the catalog would be.
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
    """Tell whether a cached image is what *reference* asks for, as far as can be told offline."""
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
