"""What vouches for an image: in words, and whether it is enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from armvm.base.errors import NotVerified
from armvm.images.model import ImageSource, Verified
from armvm.images.trust.pinned import grouped, owner_of
from armvm.settings.verify import Verify

S = TypeVar("S", bound=ImageSource)

#: What satisfies a policy. A digest that the user gave is no weaker than a signature: he vouches
#: for it himself; and what is built here comes from packages whose signatures were checked.
_ENOUGH = {
    Verify.SIGNATURE: {Verified.SIGNATURE, Verified.GIVEN, Verified.BUILT},
    Verify.DIGEST: {Verified.SIGNATURE, Verified.GIVEN, Verified.BUILT, Verified.CATALOG},
    Verify.NONE: set(Verified),
}


def satisfies(verified: Verified, policy: Verify) -> bool:
    """Tell whether what vouches for an image is as much as a policy asks for."""
    return verified in _ENOUGH[policy]


def require(source: S, policy: Verify | None) -> S:
    """Return *source* if what vouches for it is what was asked for. Raises NotVerified."""
    if policy is None or satisfies(source.verified, policy):
        return source
    found = words(source.verified.value, source.signer)
    raise NotVerified(
        f"{source.reference} is verified by {found}, and verify = {policy.value} is required",
        hint="a URL can have #sha256=HEX at its end; for a golden or a cached image, "
        "have it made or fetched again; or ask for less with --verify",
    )


def words(verified: str, signer: str | None = None) -> str:
    """Return what vouches for an image as people say it; *verified* is a Verified's value.

    Both may come from metadata that somebody edited: what is not known is said to be so.
    """
    try:
        kind = Verified(verified)
    except ValueError:
        return "unknown provenance"
    if kind is Verified.SIGNATURE:
        owner = signer and owner_of(signer)
        whose = f"{owner} ({grouped(signer or '')})" if owner else f"key {grouped(signer or '')}"
        return f"the signature of {whose}"
    return {
        Verified.CATALOG: "a digest in the distribution's catalog, without a signature",
        Verified.GIVEN: "the digest that was given with it",
        Verified.BUILT: "a build here, from signed packages",
        Verified.NOTHING: "nothing",
    }[kind]


def of_record(image: Mapping[str, str]) -> str:
    """Return the provenance in the ``image`` element of a domain's metadata, in words."""
    found = words(image.get("verified", ""), image.get("signer"))
    return f"{found}; tuned here" if image.get("tuned-from") else found
