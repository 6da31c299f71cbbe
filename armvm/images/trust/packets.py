"""OpenPGP's outer form (RFC 9580): ASCII armor, packets, certificates and their fingerprints.

Nothing secret and no arithmetic: what a signature is worth, gpgv decides (see openpgp). Here
documents are cut so that gpgv gets signatures where a signature is due and keys where a key is,
and nothing besides. All of it comes from the network or from files and is taken for hostile:
whatever is not as it should be is a ValueError.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass

#: Packet types.
SIGNATURE, PUBLIC_KEY, USER_ID, SUBKEY, USER_ATTRIBUTE = 2, 6, 13, 14, 17

#: The longest signature file and the longest key file, in bytes. A distribution's key has some
#: KiB; one that strangers have signed for years may have a MiB, and its keyring several.
MAX_SIGNATURE = 64 << 10
MAX_KEYS = 16 << 20

#: The most keys in a file (Debian's keyring of all its developers has under 1,000).
MAX_COUNT = 5000

#: The most packets in a file: a signature has some 100 bytes.
MAX_PACKETS = 100_000

_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A packet: its type, its body, and all its bytes."""

    tag: int
    body: bytes
    raw: bytes


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A public key with its user IDs and subkeys: ``fingerprint`` as upper-case hex, binary data.

    ``named`` tells that it has a user ID: without one, gpgv does not take it.
    """

    fingerprint: str
    data: bytes
    named: bool


def signatures(data: bytes) -> bytes:
    """Return a detached signature file (binary, or one armored block) as binary packets.

    Raises ValueError unless it holds signatures only: a file that brings its own document along
    would have gpgv verify that one.
    """
    if len(data) > MAX_SIGNATURE:
        raise ValueError(f"it has {len(data)} bytes")
    binary = data if _is_binary(data) else _one_block(data, b"PGP SIGNATURE")
    tags = {packet.tag for packet in packets(binary)}
    if tags != {SIGNATURE}:
        raise ValueError("it holds something else than signatures")
    return binary


def certificates(data: bytes) -> list[Certificate]:
    """Return the public keys in a key file: binary, or any number of armored blocks.

    Keys of a version that is not known are left out, and packets that belong to no key too.
    Raises ValueError when it is no key file.
    """
    if len(data) > MAX_KEYS:
        raise ValueError(f"it has {len(data)} bytes")
    found: list[tuple[str | None, bytearray, bool]] = []
    open_ = False
    for packet in packets(data if _is_binary(data) else _unarmored(data, b"PGP PUBLIC KEY BLOCK")):
        if packet.tag == PUBLIC_KEY:
            found.append((_fingerprint(packet.body), bytearray(packet.raw), False))
            open_ = True
            if len(found) > MAX_COUNT:
                raise ValueError(f"it holds more than {MAX_COUNT} keys")
        elif packet.tag == 5:  # a secret key: it and what follows is none of ours
            open_ = False
        elif open_ and packet.tag in (SIGNATURE, USER_ID, SUBKEY, USER_ATTRIBUTE):
            fingerprint, whole, named = found[-1]
            whole += packet.raw
            found[-1] = fingerprint, whole, named or packet.tag == USER_ID
    return [
        Certificate(fingerprint=fingerprint, data=bytes(whole), named=named)
        for fingerprint, whole, named in found
        if fingerprint
    ]


def packets(data: bytes) -> Iterator[Packet]:
    """Cut binary data into packets, one after another: hostile data has one in two bytes.

    Raises ValueError for what cannot be cut.
    """
    at = count = 0
    while at < len(data):
        count += 1
        if count > MAX_PACKETS:
            raise ValueError(f"it has more than {MAX_PACKETS} packets")
        begin, head = at, data[at]
        if not head & 0x80:
            raise ValueError("it is no OpenPGP data")
        if head & 0x40:
            tag = head & 0x3F
            length, at = _new_length(data, at + 1)
        else:
            tag = head >> 2 & 0x0F
            if head & 3 == 3:
                raise ValueError("it has a packet of no known length")
            size = 1 << (head & 3)
            length, at = _number(data, at + 1, size), at + 1 + size
        if at + length > len(data):
            raise ValueError("it is cut short")
        body = data[at : at + length]
        at += length
        yield Packet(tag=tag, body=body, raw=data[begin:at])


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    """Return a new-format packet's length, and where its body begins."""
    first = _number(data, at, 1)
    if first < 192:
        return first, at + 1
    if first < 224:
        return (first - 192 << 8) + _number(data, at + 1, 1) + 192, at + 2
    if first == 255:
        return _number(data, at + 1, 4), at + 5
    raise ValueError("it has a packet in pieces")


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("it is cut short")
    return int.from_bytes(data[at : at + size], "big")


def _fingerprint(body: bytes) -> str | None:
    """Return a public key packet's fingerprint; None for a version other than 4 and 6."""
    if body[:1] == b"\x04" and len(body) < 1 << 16:
        head = b"\x99" + len(body).to_bytes(2, "big")
        # What RFC 9580 says a version 4 fingerprint is. To match a pinned one, a forged key would
        # need a second preimage; only collisions of SHA-1 are within reach.
        return hashlib.sha1(head + body, usedforsecurity=False).hexdigest().upper()
    if body[:1] == b"\x06":
        head = b"\x9b" + len(body).to_bytes(4, "big")
        return hashlib.sha256(head + body).hexdigest().upper()
    return None


def _is_binary(data: bytes) -> bool:
    return bool(data) and bool(data[0] & 0x80)


def _one_block(data: bytes, kind: bytes) -> bytes:
    """Return the one armored block of a kind; raise ValueError for more, and for other text."""
    text = data.strip()
    if not (text.startswith(_BEGIN + kind + _DASHES) and text.endswith(_END + kind + _DASHES)):
        raise ValueError("it is no armored OpenPGP data")
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError("it has more than one part")
    return _unarmored(text, kind)


def _unarmored(data: bytes, kind: bytes) -> bytes:
    """Return the armored blocks of a kind, decoded and joined; text around them is passed over."""
    begin, end = _BEGIN + kind + _DASHES, _END + kind + _DASHES
    found = bytearray()
    block: _Block | None = None
    blocks = 0
    for line in map(bytes.strip, io.BytesIO(data)):
        if line == begin:
            if block is not None:
                raise ValueError("an armored part has no end")
            block = _Block()
        elif line == end and block is not None:
            found += block.decoded()
            block, blocks = None, blocks + 1
        elif block is not None:
            block.take(line)
    if block is not None or not blocks:
        raise ValueError("it is no armored OpenPGP data")
    return bytes(found)


class _Block:
    """An armored part's lines: headers, an empty line, base64, a checksum."""

    def __init__(self) -> None:
        self._text: bytearray | None = None  # None until the headers have ended
        self._last = b""

    def take(self, line: bytes) -> None:
        if self._text is not None:
            self._text += self._last
            self._last = line
        elif not line:
            self._text = bytearray()

    def decoded(self) -> bytes:
        if self._text is None:
            raise ValueError("an armored part has no empty line after its headers")
        # The checksum in the last line guards against noise only, and is not to be relied on.
        if not (self._last.startswith(b"=") and len(self._last) == 5):
            self._text += self._last
        try:
            return base64.b64decode(self._text, validate=True)
        except ValueError as error:
            raise ValueError("an armored part is no base64") from error
