"""Signed simplestreams: from a server's base URL to an image verified by Ubuntu's signature.

There are two ways; both end at a pinned key:

1. ``streams/v1/index.sjson`` and the products file it names are clear-signed. Then everything
   used is signed: release, serial, path and digest.
2. A mirror without ``.sjson`` files has ``SHA256SUMS`` and ``SHA256SUMS.gpg`` beside each image.
   The unsigned products file only gives the location; the digest is the signed one, and the
   file's name must match release and architecture. A hostile mirror could hide the newest serial,
   as it could with the first way by keeping old files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from armvm.base.errors import FetchFailed, SignatureInvalid
from armvm.base.progress import Progress
from armvm.images.distros import simplestreams
from armvm.images.distros.simplestreams import CatalogImage
from armvm.images.fetch import documents, json_document
from armvm.images.fetch.http import Missing, Web
from armvm.images.model import Verified
from armvm.images.reference import public_url
from armvm.images.trust import checksums
from armvm.images.trust.keyring import KeyStore
from armvm.images.trust.openpgp import Key
from armvm.images.trust.statement import Attested, Statement, attest
from armvm.settings.verify import Verify


@dataclass(frozen=True, kw_only=True)
class SignedImage:
    """An image in a catalog, how its digest was verified, and the signer."""

    image: CatalogImage
    verified: Verified
    signer: str | None


def find(
    web: Web,
    base: str,
    *,
    release: str,
    serial: str | None,
    policy: Verify | None,
    keys: KeyStore,
    pinned: tuple[Key, ...],
    progress: Progress,
    content: str = simplestreams.RELEASED,
    arch: str = "arm64",
) -> SignedImage:
    """Find a release's image in the stream *content* below *base* (a URL ending in a slash).

    *pinned* are the accepted keys. Raises what attest() and simplestreams.select() raise.
    """
    if policy in (Verify.DIGEST, Verify.NONE):
        listed = _listed(web, base, policy=policy, keys=keys, pinned=pinned, progress=progress)
        image = simplestreams.select(listed.document, release=release, serial=serial, arch=arch)
        return SignedImage(image=image, verified=listed.verified, signer=None)
    try:
        products = signed_products(
            web, base, policy=policy, keys=keys, pinned=pinned, progress=progress, content=content
        )
    except FetchFailed as failure:
        # Missing or unreachable. A file with an invalid signature raises SignatureInvalid, which
        # is not caught here.
        return _by_checksums(
            web, base, release, serial, policy, keys, pinned, progress, arch, failure
        )
    image = simplestreams.select(products.document, release=release, serial=serial, arch=arch)
    return SignedImage(image=image, verified=products.verified, signer=products.signer)


def signed_products(
    web: Web,
    base: str,
    *,
    policy: Verify | None,
    keys: KeyStore,
    pinned: tuple[Key, ...],
    progress: Progress,
    content: str = simplestreams.RELEASED,
) -> Attested:
    """Return the clear-signed products file that the clear-signed index names.

    Raises what attest() does, and SignatureInvalid if its stream is not *content*: one key signs
    all streams, so a mirror could pass off a daily build as a release.
    """

    def signed(path: str) -> Attested:
        url = base + _sjson(path)
        statement = Statement(url=url, clear=True, keys=pinned, limit=documents.MAX_DOCUMENT)
        return attest(web, statement, policy=policy, keys=keys, progress=progress)

    index = signed(simplestreams.INDEX_PATH)
    products = signed(simplestreams.products_path(index.document))
    try:
        found = json_document.load(products.document).get("content_id")
    except (ValueError, AttributeError):
        found = None
    if found != content:
        raise SignatureInvalid(
            f"{public_url(base)} has the catalog {ascii(found)[:80]} instead of {content}",
            hint="check the mirror; if this persists, do not trust it",
        )
    return products


def _sjson(path: str) -> str:
    """Return the path of the clear-signed version of a ``.json`` file."""
    return path if path.endswith(".sjson") else path.removesuffix(".json") + ".sjson"


def _listed(
    web: Web,
    base: str,
    *,
    policy: Verify | None,
    keys: KeyStore,
    pinned: tuple[Key, ...],
    progress: Progress,
) -> Attested:
    """Return the products file of an unsigned catalog, with one warning."""
    index = documents.document(web, base + simplestreams.INDEX_PATH, progress=progress)
    url = base + simplestreams.products_path(index)
    statement = Statement(url=url, clear=True, keys=pinned, limit=documents.MAX_DOCUMENT)
    return attest(web, statement, policy=policy, keys=keys, progress=progress)


def _by_checksums(
    web: Web,
    base: str,
    release: str,
    serial: str | None,
    policy: Verify | None,
    keys: KeyStore,
    pinned: tuple[Key, ...],
    progress: Progress,
    arch: str,
    failure: FetchFailed,
) -> SignedImage:
    index = documents.document(web, base + simplestreams.INDEX_PATH, progress=progress)
    products = documents.document(web, base + simplestreams.products_path(index), progress=progress)
    image = simplestreams.select(products, release=release, serial=serial, arch=arch)
    directory, _, name = image.path.rpartition("/")
    url = f"{base}{directory}/SHA256SUMS"
    statement = Statement(url=url, signature=f"{url}.gpg", keys=pinned)
    try:
        sums = attest(web, statement, policy=policy, keys=keys, progress=progress)
    except FetchFailed as error:
        absent = isinstance(failure, Missing) and isinstance(error, Missing)
        raise SignatureInvalid(
            f"image signature not found at {public_url(base)}"
            if absent
            else f"cannot fetch the image signature from {public_url(base)}",
            detail=f"{failure.message}\n{error.message}",
            hint="check the mirror; --verify digest skips the signature",
        ) from error
    if arch not in name or not any(
        word and word in name for word in (image.version, image.codename)
    ):
        raise SignatureInvalid(
            f"according to its name, {name} is not an image of {image.version} for {arch}",
            hint="the unsigned catalog lists a wrong file: check the mirror",
        )
    digest = checksums.digests(sums.document).get(name)
    if digest is None:
        raise SignatureInvalid(
            f"digest for {name} not found in {public_url(url)}", hint="check the mirror"
        )
    if digest != image.digest:
        raise SignatureInvalid(
            f"the digests for {name} in the catalog and the signed {public_url(url)} differ",
            detail=f"catalog {image.digest}\nsigned  {digest}",
            hint="check the mirror; if this persists, do not trust it",
        )
    return SignedImage(
        image=replace(image, digest=digest), verified=sums.verified, signer=sums.signer
    )
