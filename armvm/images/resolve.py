"""The images room's front door: a reference becomes a source, and a source a verified file.

``resolve`` and ``locate`` only look; ``obtain`` (in its own module) brings the bytes. What
differs between hosts and tests (mirror, time-outs, HTTP session, cache, builder) is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from armvm.errors import ConfigError, Unreachable
from armvm.images import fetch, formats, localfile, simplestreams
from armvm.images.cache import Cache
from armvm.images.model import ImageSource, Verified
from armvm.images.obtain import LOCAL, obtain
from armvm.images.reference import (
    CatalogReference,
    FileReference,
    Reference,
    UrlReference,
    parse,
)
from armvm.images.transport import Web
from armvm.progress import Progress, Quiet
from armvm.spec.system import CODENAMES, OperatingSystem

#: Ubuntu's released cloud images.
UBUNTU_RELEASES = "https://cloud-images.ubuntu.com/releases/"

#: The variable that names another server with the same tree.
MIRROR_VARIABLE = "ARMVM_MIRROR_UBUNTU"

__all__ = ["MIRROR_VARIABLE", "UBUNTU_RELEASES", "Settings", "locate", "obtain", "resolve"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where images come from and how servers are asked."""

    ubuntu_mirror: str = UBUNTU_RELEASES
    web: Web = field(default_factory=Web)

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str] = os.environ, *, web: Web | None = None
    ) -> Settings:
        """Return the settings that the environment asks for (ARMVM_MIRROR_UBUNTU)."""
        mirror = environ.get(MIRROR_VARIABLE) or UBUNTU_RELEASES
        return cls(ubuntu_mirror=mirror, web=web or Web())


def resolve(
    text: str,
    settings: Settings,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
    cwd: Path | None = None,
) -> ImageSource:
    """Parse an image reference and find where its image is; see parse() and locate()."""
    return locate(parse(text, cwd=cwd), settings, cache=cache, progress=progress)


def locate(
    reference: Reference,
    settings: Settings,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> ImageSource:
    """Find where a reference's image is. Reads the catalog or the file's head, fetches nothing.

    With a *cache*, a catalog that does not answer is no error while an image of that release is
    in it: the newest is taken, with a warning.

    Raises NotFound, Unreachable, FetchFailed, ImageError, ConfigError, PermissionDenied.
    """
    news = progress or Quiet()
    if isinstance(reference, CatalogReference):
        try:
            return _from_catalog(reference, settings, news)
        except Unreachable as error:
            known = cache and _fallback(reference, cache)
            if not known:
                raise
            news.warn(f"{error.message}; using {reference.text} {known.serial} from the cache")
            return known
    if isinstance(reference, FileReference):
        _, size = localfile.look(reference.path)
        formats.refuse_foreign(reference.path.name)
        return _source(reference, str(reference.path), reference.path.name, size)
    if isinstance(reference, UrlReference):
        name = PurePosixPath(unquote(urlsplit(reference.url).path)).name
        formats.refuse_foreign(name)
        return _source(reference, reference.url, name, None)
    return ImageSource(
        reference=reference.text,
        location=LOCAL + reference.name,
        system=formats.guess_system(reference.name),
        verified=Verified.BUILT,
    )


def _from_catalog(
    reference: CatalogReference, settings: Settings, progress: Progress
) -> ImageSource:
    base = _base(settings.ubuntu_mirror)
    index = fetch.document(settings.web, base + simplestreams.INDEX_PATH, progress=progress)
    path = simplestreams.products_path(index)
    products = fetch.document(settings.web, base + path, progress=progress)
    image = simplestreams.select(products, release=reference.release, serial=reference.serial)
    serial = f"/{reference.serial}" if reference.serial else ""
    return ImageSource(
        # Not as it was written: ubuntu:lts is another release in two years.
        reference=f"{reference.distro}:{image.version}{serial}",
        location=base + image.path,
        digest=image.digest,
        size=image.size,
        system=OperatingSystem(distro=reference.distro, version=image.version),
        serial=image.serial,
        verified=Verified.CATALOG,
    )


def _base(mirror: str) -> str:
    """Return a mirror's URL with a slash at its end. Raises ConfigError when it is none."""
    try:
        parts = urlsplit(mirror.strip())
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or not mirror.strip().isprintable():
        raise ConfigError(
            f"{MIRROR_VARIABLE} is no http(s) URL: {mirror[:120]!a}",
            hint=f"it names a tree like {UBUNTU_RELEASES}",
        )
    return mirror.strip().rstrip("/") + "/"


def _fallback(reference: CatalogReference, cache: Cache) -> ImageSource | None:
    """Return the newest image of a release in the cache that a catalog vouched for."""
    version = CODENAMES.get(reference.distro, {}).get(reference.release, reference.release)
    system = OperatingSystem(distro=reference.distro, version=version)
    found = [
        entry
        for entry in cache.entries()
        if entry.verified is Verified.CATALOG
        and entry.system == system
        and entry.serial
        and reference.serial in (None, entry.serial)
    ]
    if not found:
        return None
    newest = max(found, key=lambda e: [int(n) for n in (e.serial or "0").split(".") if n.isdigit()])
    serial = f"/{reference.serial}" if reference.serial else ""
    return ImageSource(
        reference=f"{reference.distro}:{version}{serial}",
        location=newest.location,
        digest=newest.digest,
        size=newest.size if newest.content == newest.digest else None,
        system=system,
        serial=newest.serial,
        verified=Verified.CATALOG,
    )


def _source(
    reference: FileReference | UrlReference, location: str, name: str, size: int | None
) -> ImageSource:
    return ImageSource(
        reference=reference.text,
        location=location,
        digest=reference.digest,
        size=size,
        system=formats.guess_system(name),
        verified=Verified.GIVEN if reference.digest else Verified.NOTHING,
    )
