"""A document in which a distribution promises digests, and what vouches for it."""

from __future__ import annotations

from dataclasses import dataclass

from armvm.errors import SignatureInvalid
from armvm.images import fetch
from armvm.images.keyring import KeyStore
from armvm.images.model import Verified
from armvm.images.openpgp import Key
from armvm.images.transport import Web
from armvm.progress import Progress
from armvm.spec.verify import Verify


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A document that promises digests.

    ``signature`` is the URL of its detached signature; ``clear`` says that it carries its
    signature itself; ``keys`` are who may have signed it, none where nobody signs.
    """

    url: str
    signature: str | None = None
    clear: bool = False
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Attested:
    """A statement's document, and what vouches for it (``signer`` is a fingerprint)."""

    document: bytes
    verified: Verified
    signer: str | None = None


def attest(
    web: Web,
    statement: Statement,
    *,
    policy: Verify | None,
    keys: KeyStore,  # noqa: ARG001
    progress: Progress,
) -> Attested:
    """Return a statement's document: its digest alone, no signature is looked at yet."""
    if policy is Verify.SIGNATURE:
        raise SignatureInvalid("signatures are not checked yet")
    document = fetch.document(web, statement.url, progress=progress)
    return Attested(document=document, verified=Verified.CATALOG)
