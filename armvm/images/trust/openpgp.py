"""Whether a document is signed by a key that armvm trusts: gpgv decides, this module asks it.

Why gpgv (of GnuPG) and not a library: its ``--status-fd`` protocol says in fixed words what is
wrong (another key, an expired or revoked one, changed bytes), where pysequoia 0.1.35 says "no
valid signatures found" for all of it; and pysequoia takes no key whose own certification uses
SHA-1, which is to be expected of a key of 2009 such as Ubuntu's, and is harmless where the key's
fingerprint is pinned. It is a program of its own (one that loops or crashes harms nothing here),
updated with the system, and small: it neither asks a key server nor uses a home directory. Both
were tried with real keys; docs/trust.md has the comparison.

What gpgv would be too generous with is decided here: the file must hold signatures only
(packets), clear-signed text is verified as detached (cleartext), a signature must use SHA-2 or
SHA-3, and the key must be one of those that are pinned.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.base import process
from armvm.base.errors import CommandFailed
from armvm.images.trust import packets

#: Seconds that gpgv may take; it needs some milliseconds.
TIMEOUT = 30.0

#: SHA-256, -384, -512, -224, and SHA3-256 and -512 as OpenPGP numbers them (RFC 9580, 9.5).
_STRONG = {"8", "9", "10", "11", "12", "14"}
#: The class of a signature over text, line ends aside, as ``VALIDSIG`` writes it.
_TEXT = "01"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key that is trusted by its fingerprint: that of the primary key, 40 or 64 hex digits.

    ``keyrings`` are files on systems that ship it, ``package`` says in words which packages do.
    ``own`` tells that the user has named it, and the files.
    """

    fingerprint: str
    owner: str
    keyrings: tuple[str, ...] = ()
    package: str = ""
    own: bool = False


class Finding(enum.Enum):
    """What is found of a signature; of several, the first in this order counts."""

    GOOD = "good"
    TAMPERED = "tampered"  #: the document is not the one that was signed
    REVOKED_KEY = "revoked key"
    EXPIRED_KEY = "expired key"
    WEAK = "weak digest"  #: by a digest that can be forged, such as SHA-1
    EXPIRED = "expired signature"
    ANOTHER_KEY = "another key"
    NONSENSE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found, and of which key: a pinned key's fingerprint, else the signer's own or id.

    ``detail`` is gpgv's own account.
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
    """Look at a detached signature, with the *certificates* (binary) that are at hand for *keys*.

    *text* tells that it must be a signature over text, line ends aside. It is GOOD only when a
    pinned key, or a signing subkey that such a key vouches for, signed exactly *document*.
    Raises MissingCapability where gpgv is not installed, and OSError when no temporary file can
    be written.
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
    """Return an outcome for each signature that gpgv tells of (doc/DETAILS of GnuPG)."""
    found: list[Outcome] = []
    word = ""
    for line in status.splitlines():
        prefix, _, rest = line.partition(" ")
        fields = rest.split(" ") if prefix == "[GNUPG:]" else []
        if not fields:
            continue
        if fields[0] in ("GOODSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG"):
            word = fields[0]  # VALIDSIG follows, which has the fingerprint
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
    """Judge a signature whose arithmetic holds: ``VALIDSIG`` says by whom, when and how."""
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
