"""Verify signatures by pinned keys, with gpgv.

Why gpgv (of GnuPG) and not a library: its ``--status-fd`` protocol says in fixed words what is
wrong (another key, an expired or revoked one, changed bytes), where pysequoia 0.1.35 says "no
valid signatures found" for all of them; and pysequoia rejects keys whose own certification uses
SHA-1, as a key of 2009 such as Ubuntu's does, which is harmless if the key's fingerprint is
pinned. gpgv is a separate program (if it loops or crashes, armvm is unaffected), updated with
the system, and small: it neither contacts key servers nor uses a home directory. Both were
tested with real keys; docs/trust.md has the comparison.

armvm is stricter than gpgv: the file must contain signatures only (packets), clear-signed text
is verified as detached (cleartext), a signature must use SHA-2 or SHA-3, and the key must be
pinned.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.base import process
from armvm.base.errors import CommandFailed
from armvm.images.trust import packets

#: Time limit for gpgv, in seconds; it needs some milliseconds.
TIMEOUT = 30.0

#: SHA-256, -384, -512, -224, and SHA3-256 and -512, by their OpenPGP numbers (RFC 9580, 9.5).
_STRONG = {"8", "9", "10", "11", "12", "14"}
#: The class of a text signature (line ends ignored) in ``VALIDSIG``.
_TEXT = "01"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A trusted key, by the fingerprint of its primary key (40 or 64 hex digits).

    ``keyrings`` are files on systems that ship it, ``package`` names the packages in words.
    ``own`` says that the user configured the key and the files.
    """

    fingerprint: str
    owner: str
    keyrings: tuple[str, ...] = ()
    package: str = ""
    own: bool = False


class Finding(enum.Enum):
    """The result for a signature; of several, the first in this order counts."""

    GOOD = "good"
    TAMPERED = "tampered"  #: the document differs from the signed one
    REVOKED_KEY = "revoked key"
    EXPIRED_KEY = "expired key"
    WEAK = "weak digest"  #: with a digest that can be forged, such as SHA-1
    EXPIRED = "expired signature"
    ANOTHER_KEY = "another key"
    NONSENSE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A result and its key: a pinned key's fingerprint, else the signer's fingerprint or id.

    ``detail`` is gpgv's output.
    """

    finding: Finding
    fingerprint: str | None = None
    detail: str | None = None


def examine(
    document: bytes,
    signature: bytes,
    certificates: Sequence[bytes],
    keys: Sequence[Key],
    *,
    text: bool = False,
) -> Outcome:
    """Check a detached signature, with the available *certificates* (binary) of *keys*.

    *text* requires a text signature (line ends ignored). The result is GOOD only if a pinned key,
    or a signing subkey certified by one, signed exactly *document*. Raises MissingCapability if
    gpgv is not installed, and OSError if a temporary file cannot be
    written.
    """
    import tempfile

    try:
        binary = packets.signatures(signature)
    except ValueError as error:
        return Outcome(finding=Finding.NONSENSE, detail=str(error))
    with tempfile.TemporaryDirectory(prefix="armvm-gpgv-") as name:
        home = Path(name)
        for file, data in (
            ("keyring", b"".join(certificates)),
            ("signature", binary),
            ("document", document),
        ):
            (home / file).write_bytes(data)
        argv: list[str | Path] = ["gpgv", "--homedir", home, "--status-fd", "1"]
        argv += ["--keyring", home / "keyring", home / "signature", home / "document"]
        try:
            done = process.run(
                argv, env={"LC_ALL": "C", "GNUPGHOME": name}, timeout=TIMEOUT, check=False
            )
        except CommandFailed as error:
            return Outcome(finding=Finding.NONSENSE, detail=error.message)
    text_of = done.stderr.decode(errors="replace").strip()[-process.TAIL :]
    account = "".join(one if one.isprintable() or one == "\n" else "?" for one in text_of)
    pinned = {key.fingerprint for key in keys}
    found = [*_read(done.text, pinned, text), Outcome(finding=Finding.NONSENSE)]
    order = list(Finding)
    first = min(found, key=lambda outcome: order.index(outcome.finding))
    return Outcome(finding=first.finding, fingerprint=first.fingerprint, detail=account or None)


def _read(status: str, pinned: set[str], text: bool) -> list[Outcome]:
    """Return the result of each signature in gpgv's status (doc/DETAILS of GnuPG)."""
    found: list[Outcome] = []
    word = ""
    for line in status.splitlines():
        prefix, _, rest = line.partition(" ")
        fields = rest.split(" ") if prefix == "[GNUPG:]" else []
        if not fields:
            continue
        if fields[0] in ("GOODSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG"):
            word = fields[0]  # VALIDSIG follows, with the fingerprint
        elif fields[0] == "VALIDSIG" and len(fields) >= 11:
            found.append(_valid(word, fields, pinned, text))
            word = ""
        elif fields[0] == "BADSIG" and len(fields) >= 2:
            found.append(Outcome(finding=Finding.TAMPERED, fingerprint=fields[1]))
        elif fields[0] == "ERRSIG" and len(fields) >= 7:
            missing = fields[6] == "9"
            signer = fields[7] if len(fields) > 7 and fields[7] != "-" else fields[1]
            found.append(
                Outcome(
                    finding=Finding.ANOTHER_KEY if missing else Finding.NONSENSE,
                    fingerprint=signer,
                )
            )
    return found


def _valid(word: str, fields: list[str], pinned: set[str], text: bool) -> Outcome:
    """Judge a cryptographically valid signature: ``VALIDSIG`` has signer, time and algorithm."""
    hash_algorithm, kind, primary = fields[8], fields[9], fields[10]
    if primary not in pinned:
        return Outcome(finding=Finding.ANOTHER_KEY, fingerprint=primary)
    if word != "GOODSIG":
        findings = {
            "EXPKEYSIG": Finding.EXPIRED_KEY,
            "REVKEYSIG": Finding.REVOKED_KEY,
            "EXPSIG": Finding.EXPIRED,
        }
        return Outcome(finding=findings.get(word, Finding.NONSENSE), fingerprint=primary)
    if hash_algorithm not in _STRONG:
        return Outcome(finding=Finding.WEAK, fingerprint=primary)
    if kind not in ((_TEXT,) if text else ("00", _TEXT)):
        return Outcome(finding=Finding.NONSENSE, fingerprint=primary)
    return Outcome(finding=Finding.GOOD, fingerprint=primary)
