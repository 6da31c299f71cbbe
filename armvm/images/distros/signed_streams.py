"""Simplestreams that are signed: from a server's base URL to an image that Ubuntu vouches for.

Two ways, and both end at a pinned key:

1. ``streams/v1/index.sjson`` and the products file it names are clear-signed. All that is used is
   signed then: release, serial, path and digest.
2. A mirror without ``.sjson`` files has ``SHA256SUMS`` and ``SHA256SUMS.gpg`` beside each image.
   The unsigned products file only says where to look; the digest is the signed one, and the file's
   name must be that of the release and the architecture. Which serial is the newest, a hostile
   mirror could lie about; with the first way too, by keeping to old files.
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
    """An image in a catalog, what vouches for its digest, and whose key it was."""

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
    """Find a release's image in the stream *content* below *base* (a URL with a slash at its end).

    *pinned* may have signed it. Raises what attest() and simplestreams.select() raise.
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
        # Not there, or not to be had. A file whose signature does not hold is SignatureInvalid,
        # and ends it here.
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

    Raises what attest() does; SignatureInvalid too when it is of another stream than *content*:
    one key signs them all, so a daily build could be passed off as a release.
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
            f"{public_url(base)} has another catalog, {ascii(found)[:80]}, in place of {content}",
            hint="check the mirror; if it happens again, do not trust it",
        )
    return products


def _sjson(path: str) -> str:
    """Return the clear-signed twin of a ``.json`` path."""
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
    """Return the products file of a catalog that nobody checks the signature of, warned of once."""
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
            f"{public_url(base)} has no signature for the image"
            if absent
            else f"no signature for the image could be fetched from {public_url(base)}",
            detail=f"{failure.message}\n{error.message}",
            hint="check the mirror; --verify digest does without the signature",
        ) from error
    if arch not in name or not any(
        word and word in name for word in (image.version, image.codename)
    ):
        raise SignatureInvalid(
            f"{name} is not the name of an image of {image.version} for {arch}",
            hint="the catalog is not signed, and names another file: check the mirror",
        )
    digest = checksums.digests(sums.document).get(name)
    if digest is None:
        raise SignatureInvalid(
            f"{public_url(url)} has no digest for {name}", hint="check the mirror"
        )
    if digest != image.digest:
        raise SignatureInvalid(
            f"the catalog has another digest for {name} than the signed {public_url(url)}",
            detail=f"catalog {image.digest}\nsigned  {digest}",
            hint="check the mirror; if it happens again, do not trust it",
        )
    return SignedImage(
        image=replace(image, digest=digest), verified=sums.verified, signer=sums.signer
    )
