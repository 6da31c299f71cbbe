"""Download a distribution's statement of digests, and verify its signature.

Only this module decides whether a published digest is trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import FetchFailed, NotVerified, SignatureInvalid, Unreachable
from armvm.base.progress import Progress
from armvm.images.fetch import documents
from armvm.images.fetch.http import Missing, Web
from armvm.images.model import Verified
from armvm.images.reference import public_url
from armvm.images.trust import cleartext, packets
from armvm.images.trust.keyring import VARIABLE, WEAKER, Copy, KeyStore
from armvm.images.trust.openpgp import Finding, Key, Outcome, examine
from armvm.images.trust.pinned import grouped
from armvm.settings.verify import Verify

#: Results that another copy of the keys may change: a missing key, or one with a new subkey
#: or a later expiry date.
_MENDABLE = (Finding.ANOTHER_KEY, Finding.EXPIRED_KEY)


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A document in which a distribution publishes digests.

    ``signature`` is the URL of its detached signature; ``clear`` says that it is clear-signed.
    ``keys`` may have signed it; empty if nobody signs it. ``limit`` is its maximum size in
    bytes.
    """

    url: str
    signature: str | None = None
    clear: bool = False
    keys: tuple[Key, ...] = ()
    limit: int = documents.MAX_CHECKSUMS

    @property
    def signed(self) -> bool:
        """Whether its source publishes a signature."""
        return bool(self.keys) and (self.clear or self.signature is not None)


@dataclass(frozen=True, kw_only=True)
class Attested:
    """A document that may be used: its text (without a clear signature), and its verification.

    ``signer`` is the fingerprint of the pinned key that signed it, if one did.
    """

    document: bytes
    verified: Verified
    signer: str | None = None


def attest(
    web: Web,
    statement: Statement,
    *,
    policy: Verify | None,
    keys: KeyStore,
    progress: Progress,
) -> Attested:
    """Download a statement, and its signature if the *policy* requires it, and check it.

    If the source signs, only a good signature is accepted, unless the policy allows something
    weaker, with a warning. A missing signature is an error; armvm never continues
    without it. With Verify.NONE, the digests are not to be relied on either.

    Raises SignatureInvalid, NotVerified (the policy requires a signature and the source has
    none), Unreachable, FetchFailed, MissingCapability (no gpgv).
    """
    shown = public_url(statement.url)
    body = documents.document(web, statement.url, progress=progress, limit=statement.limit)
    if policy in (Verify.DIGEST, Verify.NONE) or not statement.signed:
        if policy is Verify.SIGNATURE:
            raise NotVerified(
                f"{shown} is not signed by its distribution, but a signature is required",
                hint="--verify digest accepts the digest, which is only as safe as the connection",
            )
        text = _text(body, shown) if cleartext.is_clear(body) else body
        if policy is Verify.NONE:
            progress.warn(f"not verified (verify = none): {shown}")
            return Attested(document=text, verified=Verified.NOTHING)
        if statement.signed:
            progress.warn(f"the signature is not checked (verify = digest): {shown}")
        return Attested(document=text, verified=Verified.CATALOG)
    if statement.clear:
        clear = _split(body, shown)
        document, signed, signature = clear.text, clear.signed, clear.signature
    else:
        document = signed = body
        signature = _signature(web, statement, progress)
    signer = _check(web, statement, signed, signature, keys, progress)
    return Attested(document=document, verified=Verified.SIGNATURE, signer=signer)


def _check(
    web: Web,
    statement: Statement,
    signed: bytes,
    signature: bytes,
    keys: KeyStore,
    progress: Progress,
) -> str:
    """Return the fingerprint of the pinned key that signed. Raises SignatureInvalid, …"""

    def look(certificates: list[bytes]) -> Outcome:
        return examine(
            signed,
            signature,
            certificates,
            statement.keys,
            text=statement.clear,
        )

    for problem in (one for key in statement.keys for one in keys.problems(key)):
        progress.warn(problem)
    copies = {key: found for key in statement.keys if (found := keys.have(key))}
    known = {key: found[0].data for key, found in copies.items()}
    failures: list[Unreachable | SignatureInvalid] = []
    outcome = look(list(known.values()))
    if outcome.finding in _MENDABLE and any(len(found) > 1 for found in copies.values()):
        known = {key: found[-1].data for key, found in copies.items()}
        outcome = look(list(known.values()))
    if outcome.finding in _MENDABLE:
        outcome = _with_fetched(
            outcome,
            known,
            look,
            lambda key: keys.fetch(web, key, progress),
            statement.keys,
            failures,
        )
    if outcome.finding is Finding.GOOD and outcome.fingerprint:
        return outcome.fingerprint
    signer = next((key for key in statement.keys if key.fingerprint == outcome.fingerprint), None)
    if outcome.finding is Finding.EXPIRED_KEY and signer:
        raise _expired(statement, signer, copies.get(signer, []), failures, keys.path(signer))
    raise _refusal(outcome, statement)


def _expired(
    statement: Statement,
    key: Key,
    copies: list[Copy],
    failures: list[Unreachable | SignatureInvalid],
    place: Path,
) -> SignatureInvalid:
    """Return the error for a key that has expired in all available copies."""
    detail = [f"expired in {copy.path}" for copy in copies]
    detail += [f"no newer copy: {failure.message}" for failure in failures]
    if not failures:
        detail.append("no newer copy on the key server")
    cures = [f"update that file (package {key.package})"] if copies and key.package else []
    if failures:
        cures.append(f"set a reachable key server in {VARIABLE}")
    cures += [f"put the current key at {place}", "check the clock", WEAKER]
    return SignatureInvalid(
        f"the key of {key.owner}, which signed {public_url(statement.url)}, has expired",
        detail="\n".join(detail),
        hint="; ".join(cures),
    )


def _with_fetched(
    outcome: Outcome,
    known: dict[Key, bytes],
    look: Callable[[list[bytes]], Outcome],
    fetched: Callable[[Key], bytes],
    keys: tuple[Key, ...],
    failures: list[Unreachable | SignatureInvalid],
) -> Outcome:
    """Check again, with the current certificates from key servers.

    If a key cannot be downloaded, an error is raised only if it was missing before and may be the
    signer's; otherwise the error is appended to *failures*.
    """
    failure: Unreachable | SignatureInvalid | None = None
    certificates = dict(known)
    named = [key for key in keys if outcome.fingerprint == key.fingerprint]
    for key in named or keys:
        try:
            certificates[key] = fetched(key)
        except (Unreachable, SignatureInvalid) as error:
            if key not in known:
                failure = failure or error
            failures.append(error)
            continue
        again = look(list(certificates.values()))
        if again.finding not in _MENDABLE:
            return again
        outcome = again
    if failure is not None and outcome.finding is Finding.ANOTHER_KEY:
        raise failure
    return outcome


def _refusal(outcome: Outcome, statement: Statement) -> SignatureInvalid:
    shown = public_url(statement.url)
    owners = " or ".join(dict.fromkeys(key.owner for key in statement.keys))
    owner = next(
        (key.owner for key in statement.keys if key.fingerprint == outcome.fingerprint), owners
    )
    distrust = "nothing was kept; if this persists, do not trust the server"
    message, hint = {
        Finding.TAMPERED: (f"{shown} differs from what {owner} signed", distrust),
        Finding.ANOTHER_KEY: (f"{shown} is signed, but not by {owners}", distrust),
        Finding.REVOKED_KEY: (f"the key of {owner}, which signed {shown}, is revoked", distrust),
        Finding.EXPIRED: (f"the signature of {shown} has expired", f"check the clock; {WEAKER}"),
        Finding.WEAK: (
            f"the signature of {shown} uses a digest that can be forged (SHA-1 or older)",
            WEAKER,
        ),
    }.get(outcome.finding, (f"cannot read the signature of {shown}", distrust))
    detail = outcome.detail
    if outcome.finding is Finding.ANOTHER_KEY:
        # For a missing key, gpgv knows the fingerprint or only the id.
        wanted = "\n".join(f"expected  {grouped(key.fingerprint)}" for key in statement.keys)
        detail = f"signed by {outcome.fingerprint or '?'}\n{wanted}"
    return SignatureInvalid(message, detail=detail, hint=hint)


def _signature(web: Web, statement: Statement, progress: Progress) -> bytes:
    url = statement.signature or ""
    try:
        return documents.document(web, url, progress=progress, limit=packets.MAX_SIGNATURE)
    except FetchFailed as error:
        shown = public_url(statement.url)
        absent = isinstance(error, Missing)
        raise SignatureInvalid(
            f"signature of {shown} not found: {error.message}"
            if absent
            else f"cannot download the signature of {shown}: {error.message}",
            hint=f"check the mirror; {WEAKER}",
        ) from error


def _split(body: bytes, shown: str) -> cleartext.Clear:
    if not cleartext.is_clear(body):
        raise SignatureInvalid(f"{shown} is not signed", hint=f"check the mirror; {WEAKER}")
    try:
        return cleartext.split(body)
    except ValueError as error:
        raise SignatureInvalid(
            f"cannot read the signature of {shown}", detail=str(error), hint=WEAKER
        ) from error


def _text(body: bytes, shown: str) -> bytes:
    try:
        return cleartext.split(body).text
    except ValueError as error:
        raise FetchFailed(f"cannot read {shown}: {error}", hint="check the mirror") from error
