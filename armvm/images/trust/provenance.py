"""How an image was verified: in words, and whether that is enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from armvm.base.errors import NotVerified
from armvm.images.model import ImageSource, Verified
from armvm.images.trust.pinned import grouped, owner_of
from armvm.settings.verify import Verify

S = TypeVar("S", bound=ImageSource)

#: What satisfies each policy. A digest from the user is as strong as a signature, because the
#: user is responsible for it; local builds use packages whose signatures were checked.
_ENOUGH = {
    Verify.SIGNATURE: {Verified.SIGNATURE, Verified.GIVEN, Verified.BUILT},
    Verify.DIGEST: {Verified.SIGNATURE, Verified.GIVEN, Verified.BUILT, Verified.CATALOG},
    Verify.NONE: set(Verified),
}


def satisfies(verified: Verified, policy: Verify) -> bool:
    """Return whether a verification satisfies a policy."""
    return verified in _ENOUGH[policy]


def require(source: S, policy: Verify | None) -> S:
    """Return *source* if its verification satisfies the policy. Raises NotVerified."""
    if policy is None or satisfies(source.verified, policy):
        return source
    found = words(source.verified.value, source.signer)
    raise NotVerified(
        f"{source.reference} is verified by {found}, but verify = {policy.value} is required",
        hint="for a URL, append #sha256=HEX; for a golden, create it again; for a cached image, "
        "remove it so that armvm downloads it again; or require less with --verify",
    )


def words(verified: str, signer: str | None = None) -> str:
    """Return how an image was verified, in words; *verified* is a Verified's value.

    Both may come from edited metadata: unknown values are reported as unknown.
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
        Verified.GIVEN: "the digest given with the reference",
        Verified.BUILT: "a local build from signed packages",
        Verified.NOTHING: "nothing",
    }[kind]


def of_record(image: Mapping[str, str]) -> str:
    """Return how an image was verified, from the ``image`` element of a domain's metadata."""
    found = words(image.get("verified", ""), image.get("signer"))
    found += "; packages added here" if image.get("packages") else ""
    return f"{found}; tuned here" if image.get("tuned-from") else found
