"""The images room's front door: a reference becomes a source, and a source a verified file.

``resolve`` and ``locate`` only look; ``obtain`` (in its own module) brings the bytes. What
differs between hosts and tests (mirror, time-outs, HTTP session, cache, builder) is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from armvm.errors import ConfigError, Unreachable
from armvm.images import formats, localfile, signed_streams
from armvm.images.cache import Cache
from armvm.images.keyring import KeyStore
from armvm.images.model import ImageSource, Verified
from armvm.images.obtain import LOCAL, obtain
from armvm.images.openpgp import Key
from armvm.images.pinned import UBUNTU
from armvm.images.provenance import require, satisfies
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
from armvm.spec.verify import Verify

#: Ubuntu's released cloud images.
UBUNTU_RELEASES = "https://cloud-images.ubuntu.com/releases/"

#: The variable that names another server with the same tree.
MIRROR_VARIABLE = "ARMVM_MIRROR_UBUNTU"

__all__ = ["MIRROR_VARIABLE", "UBUNTU_RELEASES", "Settings", "locate", "obtain", "resolve"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where images come from, how servers are asked, and what has to vouch for an image.

    ``verify`` is the weakest that is accepted, None for the strongest that a source offers.
    ``pinned`` are the keys that may sign Ubuntu's catalog, whichever mirror serves it.
    """

    ubuntu_mirror: str = UBUNTU_RELEASES
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

        That is the mirror (ARMVM_MIRROR_UBUNTU) and the key servers; *verify* is decided by the
        caller. Raises ConfigError.
        """
        mirror = environ.get(MIRROR_VARIABLE) or UBUNTU_RELEASES
        keys = KeyStore.default(environ, files)
        return cls(ubuntu_mirror=mirror, web=web or Web(), verify=verify, keys=keys)


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
    in it that was verified as is asked for now: the newest is taken, with a warning.

    Raises NotFound, Unreachable, FetchFailed, SignatureInvalid, NotVerified, ImageError,
    ConfigError, PermissionDenied.
    """
    news = progress or Quiet()
    if isinstance(reference, CatalogReference):
        try:
            return _from_catalog(reference, settings, news)
        except Unreachable as error:
            known = cache and _fallback(reference, cache, settings.verify)
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
        return require(_source(reference, reference.url, name, None), settings.verify)
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
    found = signed_streams.find(
        settings.web,
        base,
        release=reference.release,
        serial=reference.serial,
        policy=settings.verify,
        keys=settings.keys,
        pinned=settings.pinned,
        progress=progress,
    )
    image = found.image
    # Where nothing is to be verified, the catalog's promises bind nobody.
    promised = found.verified is not Verified.NOTHING
    serial = f"/{reference.serial}" if reference.serial else ""
    return ImageSource(
        # Not as it was written: ubuntu:lts is another release in two years.
        reference=f"{reference.distro}:{image.version}{serial}",
        location=base + image.path,
        digest=image.digest if promised else None,
        size=image.size if promised else None,
        system=OperatingSystem(distro=reference.distro, version=image.version),
        serial=image.serial,
        verified=found.verified,
        signer=found.signer,
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


def _fallback(
    reference: CatalogReference, cache: Cache, policy: Verify | None
) -> ImageSource | None:
    """Return the newest image of a release in the cache that a catalog vouched for.

    Nobody attests it again now, so it must have been verified as the *policy* asks.
    """
    # What is asked for by default is the strongest: Ubuntu signs.
    wanted = policy or Verify.SIGNATURE
    version = CODENAMES.get(reference.distro, {}).get(reference.release, reference.release)
    system = OperatingSystem(distro=reference.distro, version=version)
    found = [
        entry
        for entry in cache.entries()
        if entry.verified in (Verified.SIGNATURE, Verified.CATALOG)
        and satisfies(entry.verified, wanted)
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
        verified=newest.verified,
        signer=newest.signer,
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
