"""Signatures with real keys: gpgv's verdicts, and armvm's decisions."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armvm.images.trust import cleartext, packets
from armvm.images.trust.openpgp import Finding, Outcome, examine
from tests.openpgp_tools import Gpg, pin

pytestmark = pytest.mark.unit

DOCUMENT = b"4f" * 32 + b" *ubuntu-24.04-server-cloudimg-arm64.img\n"


def look(gpg: Gpg, fingerprint: str, signature: bytes, document: bytes = DOCUMENT) -> Outcome:
    (certificate,) = packets.certificates(gpg.export(fingerprint))
    return examine(document, signature, [certificate.data], [pin(fingerprint)])


def test_a_good_signature(gpg: Gpg, ours: str) -> None:
    for options in ([], ["--armor"], ["--textmode"]):
        outcome = look(gpg, ours, gpg.detached(ours, DOCUMENT, *options))
        assert (outcome.finding, outcome.fingerprint) == (Finding.GOOD, ours)


def test_an_rsa_key_certified_by_sha1_as_in_2009(gpg: Gpg) -> None:
    old = gpg.key("old", algorithm="rsa2048", at="20100101T000000", digest="SHA1")
    signature = gpg.detached(old, DOCUMENT, "--digest-algo", "SHA512")
    assert look(gpg, old, signature).finding is Finding.GOOD
    weak = gpg.detached(old, DOCUMENT, "--digest-algo", "SHA1")
    assert look(gpg, old, weak).finding is Finding.WEAK


def test_a_changed_document(gpg: Gpg, ours: str) -> None:
    signature = gpg.detached(ours, DOCUMENT)
    for changed in (b"", DOCUMENT[:-1], DOCUMENT + b"\n", DOCUMENT.replace(b"4f", b"5f", 1)):
        assert look(gpg, ours, signature, changed).finding is Finding.TAMPERED


def test_another_key(gpg: Gpg, ours: str, another: str) -> None:
    outcome = look(gpg, ours, gpg.detached(another, DOCUMENT))
    assert (outcome.finding, outcome.fingerprint) == (Finding.ANOTHER_KEY, another)
    # Nor does it help that its certificate is at hand: it is not pinned.
    both = [one.data for one in packets.certificates(gpg.export(ours, another))]
    outcome = examine(DOCUMENT, gpg.detached(another, DOCUMENT), both, [pin(ours)])
    assert (outcome.finding, outcome.fingerprint) == (Finding.ANOTHER_KEY, another)


def test_no_certificate_at_hand(gpg: Gpg, ours: str) -> None:
    outcome = examine(DOCUMENT, gpg.detached(ours, DOCUMENT), [], [pin(ours)])
    assert (outcome.finding, outcome.fingerprint) == (Finding.ANOTHER_KEY, ours)


def test_two_signatures_of_which_one_is_pinned(gpg: Gpg, ours: str, another: str) -> None:
    first, second = gpg.detached(another, DOCUMENT), gpg.detached(ours, DOCUMENT)
    for both in (first + second, second + first):
        outcome = look(gpg, ours, both)
        assert (outcome.finding, outcome.fingerprint) == (Finding.GOOD, ours)


def test_a_signing_subkey_counts_as_its_primary_key(gpg: Gpg) -> None:
    primary = gpg.key("with-subkey")
    gpg.subkey(primary)
    signature = gpg.detached(primary, DOCUMENT)
    outcome = look(gpg, primary, signature)
    assert (outcome.finding, outcome.fingerprint) == (Finding.GOOD, primary)
    assert b"using EDDSA key " + primary.encode() not in (outcome.detail or "").encode()


def test_a_subkey_that_the_pinned_key_never_took(gpg: Gpg, ours: str) -> None:
    """A key server can send the pinned key with somebody else's subkey behind it."""
    thief = gpg.key("thief")
    gpg.subkey(thief)
    signature = gpg.detached(thief, DOCUMENT)
    victim = list(packets.packets(gpg.export(ours)))
    stolen = list(packets.packets(gpg.export(thief)))
    tail = stolen[[one.tag for one in stolen].index(packets.SUBKEY) :]
    forged = b"".join(one.raw for one in [*victim, *tail])
    (certificate,) = packets.certificates(forged)
    assert certificate.fingerprint == ours
    outcome = examine(DOCUMENT, signature, [certificate.data], [pin(ours)])
    assert outcome.finding not in (Finding.GOOD, Finding.EXPIRED_KEY)


def test_expired_and_revoked_keys(gpg: Gpg) -> None:
    then = "20200601T000000"
    expired = gpg.key("expired", expires="2021-01-01", at="20200101T000000")
    signature = gpg.detached(expired, DOCUMENT, at=then)
    outcome = look(gpg, expired, signature)
    assert (outcome.finding, outcome.fingerprint) == (Finding.EXPIRED_KEY, expired)
    revoked = gpg.key("revoked")
    signature = gpg.detached(revoked, DOCUMENT)
    assert look(gpg, revoked, signature).finding is Finding.GOOD
    gpg.revoke(revoked)
    assert look(gpg, revoked, signature).finding is Finding.REVOKED_KEY


def test_an_expired_signature(gpg: Gpg, ours: str) -> None:
    early = gpg.key("early", at="20200101T000000")
    options = ("--default-sig-expire", "1d")
    signature = gpg.detached(early, DOCUMENT, *options, at="20200601T000000")
    assert look(gpg, early, signature).finding is Finding.EXPIRED


@pytest.mark.parametrize("junk", [b"", b"<html>404</html>", b"\x88\x05hello", bytes(70_000)])
def test_nonsense(gpg: Gpg, ours: str, junk: bytes) -> None:
    assert look(gpg, ours, junk).finding is Finding.NONSENSE


def test_a_signature_file_that_brings_its_own_document(gpg: Gpg, ours: str) -> None:
    """gpgv would verify the document inside, and not the one beside it."""
    inline = gpg.run("-u", ours, "--compress-algo", "none", "--sign", input=DOCUMENT)
    assert look(gpg, ours, inline, b"something else").finding is Finding.NONSENSE
    armored = gpg.run("-u", ours, "--armor", "--sign", input=DOCUMENT)
    assert look(gpg, ours, armored, b"something else").finding is Finding.NONSENSE


def test_signature_files_hold_signatures_only(gpg: Gpg, ours: str) -> None:
    good = gpg.detached(ours, DOCUMENT)
    assert packets.signatures(good) == good
    for other in (gpg.export(ours), b"\xcb\x07b\0\0\0\0\0x", b"\xca\x03PGP"):
        for both in (good + other, other + good, other):
            with pytest.raises(ValueError, match="other than signatures"):
                packets.signatures(both)


def clear(gpg: Gpg, fingerprint: str, document: bytes) -> tuple[Finding, bytes]:
    parts = cleartext.split(document)
    (certificate,) = packets.certificates(gpg.export(fingerprint))
    found = examine(
        parts.signed, parts.signature, [certificate.data], [pin(fingerprint)], text=True
    )
    return found.finding, parts.text


TEXTS = [
    b"one line\n",
    b"- a dash\n-- two\n\n  trailing blanks \t\n",
    b"From me\nline\r\nwith carriage return\r\n",
    b"no end of line",
    b"\n\n",
    "ümlaut\n".encode(),
    b"x" * 15_000 + b"\n",  # gpg itself cuts lines at 20,000
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_clear_signed_documents(gpg: Gpg, ours: str, text: bytes) -> None:
    finding, read = clear(gpg, ours, gpg.clear(ours, text))
    assert finding is Finding.GOOD
    lines = [line.rstrip(b" \t\r") for line in text.removesuffix(b"\n").split(b"\n")]
    assert read == b"\n".join(lines) + b"\n"


def test_a_changed_clear_signed_document(gpg: Gpg, ours: str) -> None:
    document = gpg.clear(ours, b'{"sha256": "aaaa"}\n')
    assert clear(gpg, ours, document.replace(b"aaaa", b"bbbb"))[0] is Finding.TAMPERED


def test_a_binary_signature_is_none_over_text(gpg: Gpg, ours: str) -> None:
    text = b"a\r\nb"
    armored = gpg.detached(ours, text, "--armor")
    document = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\na\nb\n" + armored
    assert clear(gpg, ours, document)[0] is Finding.NONSENSE


def test_clear_signed_documents_that_are_more_than_that(gpg: Gpg, ours: str) -> None:
    good = gpg.clear(ours, b"a: 1\n")
    begin = b"-----BEGIN PGP SIGNED MESSAGE-----\n"
    for bad in (
        b"before\n" + good,
        good + b"after\n",
        good + good,
        good.replace(b"Hash: ", b"NotDashEscaped: You need GnuPG\nHash: ", 1),
        good.replace(b"Hash: ", b"Comment: ", 1),
        good.replace(b"a: 1", b"-----BEGIN PGP SIGNATURE-----\na: 1", 1),
        good.replace(b"a: 1", b"--- a: 1", 1),
        good.replace(b"a: 1", b"a\r: 1", 1),
        good.replace(b"a: 1", b"a\0: 1", 1),
        begin + b"Hash: SHA512\n\na: 1\n",
        begin,
        b"a: 1\n",
        b"",
    ):
        with pytest.raises(ValueError, match=r"its? "):
            cleartext.split(bad)


def test_key_files(gpg: Gpg, ours: str, another: str) -> None:
    binary = gpg.export(ours, another)
    armored = gpg.export(ours, another, armor=True)
    wanted = {ours, another}
    apart = b"A comment.\n" + gpg.export(ours, armor=True) + gpg.export(another, armor=True)
    for data in (binary, armored, armored.replace(b"\n", b"\r\n"), apart):
        found = packets.certificates(data)
        assert {one.fingerprint for one in found} == wanted
        assert all(one.named for one in found)
    secret = gpg.run("--export-secret-keys", another)
    assert [one.fingerprint for one in packets.certificates(secret + gpg.export(ours))] == [ours]
    first = next(packets.packets(gpg.export(ours))).raw
    assert not packets.certificates(first)[0].named


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff", b"\x9b", b"\xc6\xff\xff", b"\xc6\xe1\0"])
def test_what_is_no_key_file(junk: bytes) -> None:
    with pytest.raises(ValueError, match=r"it |no "):
        packets.certificates(junk)


@pytest.fixture(scope="module")
def whole(gpg: Gpg, ours: str) -> dict[str, bytes]:
    """Files of each kind that are as they should be, for mutations to begin with."""
    return {
        "signature": gpg.detached(ours, DOCUMENT),
        "armored": gpg.detached(ours, DOCUMENT, "--armor"),
        "key": gpg.export(ours),
        "armored key": gpg.export(ours, armor=True),
        "clear": gpg.clear(ours, DOCUMENT),
    }


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_are_refused_in_good_order(
    data: st.DataObject, whole: dict[str, bytes], ours: str
) -> None:
    """300 damaged signatures, keys and clear-signed texts: refused, or as good as the original."""
    kind = data.draw(st.sampled_from(sorted(whole)))
    body = bytearray(whole[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "double"])):
            case "flip":
                body[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del body[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                body[at:at] = data.draw(st.binary(min_size=1, max_size=40))
            case "double":
                body[at:at] = body[at : at + 100]
        if not body:
            body = bytearray(b"x")
    mutated = bytes(body)
    certificates = packets.certificates(whole["key"])
    document, signature, text = DOCUMENT, whole["signature"], False
    if "key" in kind:
        try:
            certificates = packets.certificates(mutated)
        except ValueError:
            return
        certificates = [one for one in certificates if one.fingerprint == ours]
    elif kind == "clear":
        try:
            parts = cleartext.split(mutated)
        except ValueError:
            return
        document, signature, text = parts.signed, parts.signature, True
    else:
        signature = mutated
    outcome = examine(
        document, signature, [one.data for one in certificates], [pin(ours)], text=text
    )
    assert "timed out" not in (outcome.detail or "")
    if outcome.finding is Finding.GOOD:
        assert document.replace(b"\r\n", b"\n").rstrip() == DOCUMENT.rstrip()
        assert outcome.fingerprint == ours
