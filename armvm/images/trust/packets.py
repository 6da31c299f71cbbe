"""OpenPGP's data format (RFC 9580): ASCII armor, packets, certificates and their fingerprints.

This module does no cryptography: gpgv verifies signatures (see openpgp). It makes sure that gpgv
gets only signatures where it expects signatures, and only keys where it expects keys. All data
comes from the network or from files and is untrusted: anything invalid raises
ValueError.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass

#: Packet types.
SIGNATURE, PUBLIC_KEY, USER_ID, SUBKEY, USER_ATTRIBUTE = 2, 6, 13, 14, 17

#: Maximum size of a signature file and a key file, in bytes. A distribution's key has some KiB;
#: one with many years of other people's signatures may have a MiB, and its keyring several.
MAX_SIGNATURE = 64 << 10
MAX_KEYS = 16 << 20

#: Maximum number of keys in a file (Debian's developer keyring has under 1,000).
MAX_COUNT = 5000

#: Maximum number of packets in a file: a signature has about 100 bytes.
MAX_PACKETS = 100_000

_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A packet: its type, body, and all its bytes."""

    tag: int
    body: bytes
    raw: bytes


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A public key with its user IDs and subkeys: ``fingerprint`` as upper-case hex, binary data.

    ``named`` says that it has a user ID, which gpgv requires.
    """

    fingerprint: str
    data: bytes
    named: bool


def signatures(data: bytes) -> bytes:
    """Return a detached signature file (binary, or one armored block) as binary packets.

    Raises ValueError unless it contains signatures only: gpgv would verify a document that is
    included in the file instead.
    """
    if len(data) > MAX_SIGNATURE:
        raise ValueError(f"it is too large ({len(data)} bytes)")
    binary = data if _is_binary(data) else _one_block(data, b"PGP SIGNATURE")
    tags = {packet.tag for packet in packets(binary)}
    if tags != {SIGNATURE}:
        raise ValueError("it contains packets other than signatures")
    return binary


def certificates(data: bytes) -> list[Certificate]:
    """Return the public keys in a key file: binary, or any number of armored blocks.

    Keys of unknown versions, and packets that belong to no key, are omitted.
    Raises ValueError if it is not a key file.
    """
    if len(data) > MAX_KEYS:
        raise ValueError(f"it is too large ({len(data)} bytes)")
    found: list[tuple[str | None, bytearray, bool]] = []
    open_ = False
    for packet in packets(data if _is_binary(data) else _unarmored(data, b"PGP PUBLIC KEY BLOCK")):
        if packet.tag == PUBLIC_KEY:
            found.append((_fingerprint(packet.body), bytearray(packet.raw), False))
            open_ = True
            if len(found) > MAX_COUNT:
                raise ValueError(f"it contains more than {MAX_COUNT} keys")
        elif packet.tag == 5:  # a secret key: skip it and its packets
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
    """Split binary data into packets lazily: hostile data can have one in every two bytes.

    Raises ValueError for invalid data.
    """
    at = count = 0
    while at < len(data):
        count += 1
        if count > MAX_PACKETS:
            raise ValueError(f"it contains more than {MAX_PACKETS} packets")
        begin, head = at, data[at]
        if not head & 0x80:
            raise ValueError("it is not OpenPGP data")
        if head & 0x40:
            tag = head & 0x3F
            length, at = _new_length(data, at + 1)
        else:
            tag = head >> 2 & 0x0F
            if head & 3 == 3:
                raise ValueError("it has a packet of unknown length")
            size = 1 << (head & 3)
            length, at = _number(data, at + 1, size), at + 1 + size
        if at + length > len(data):
            raise ValueError("it is truncated")
        body = data[at : at + length]
        at += length
        yield Packet(tag=tag, body=body, raw=data[begin:at])


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    """Return a new-format packet's length, and the start of its body."""
    first = _number(data, at, 1)
    if first < 192:
        return first, at + 1
    if first < 224:
        return (first - 192 << 8) + _number(data, at + 1, 1) + 192, at + 2
    if first == 255:
        return _number(data, at + 1, 4), at + 5
    raise ValueError("it has a packet of partial lengths")


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("it is truncated")
    return int.from_bytes(data[at : at + size], "big")


def _fingerprint(body: bytes) -> str | None:
    """Return a public key packet's fingerprint; None for versions other than 4 and 6."""
    if body[:1] == b"\x04" and len(body) < 1 << 16:
        head = b"\x99" + len(body).to_bytes(2, "big")
        # RFC 9580 defines version 4 fingerprints by SHA-1. To match a pinned one, a forged key
        # would need a second preimage; only collisions of SHA-1 are feasible.
        return hashlib.sha1(head + body, usedforsecurity=False).hexdigest().upper()
    if body[:1] == b"\x06":
        head = b"\x9b" + len(body).to_bytes(4, "big")
        return hashlib.sha256(head + body).hexdigest().upper()
    return None


def _is_binary(data: bytes) -> bool:
    return bool(data) and bool(data[0] & 0x80)


def _one_block(data: bytes, kind: bytes) -> bytes:
    """Return the one armored block of a kind; raise ValueError for more blocks or other text."""
    text = data.strip()
    if not (text.startswith(_BEGIN + kind + _DASHES) and text.endswith(_END + kind + _DASHES)):
        raise ValueError("it is not armored OpenPGP data")
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError("it has more than one armored part")
    return _unarmored(text, kind)


def _unarmored(data: bytes, kind: bytes) -> bytes:
    """Return the armored blocks of a kind, decoded and joined; other text is skipped."""
    begin, end = _BEGIN + kind + _DASHES, _END + kind + _DASHES
    found = bytearray()
    block: _Block | None = None
    blocks = 0
    for line in map(bytes.strip, io.BytesIO(data)):
        if line == begin:
            if block is not None:
                raise ValueError("an armored part is truncated")
            block = _Block()
        elif line == end and block is not None:
            found += block.decoded()
            block, blocks = None, blocks + 1
        elif block is not None:
            block.take(line)
    if block is not None or not blocks:
        raise ValueError("it is not armored OpenPGP data")
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
            raise ValueError("an armored part lacks an empty line after its headers")
        # The checksum in the last line only detects noise, and cannot be relied on.
        if not (self._last.startswith(b"=") and len(self._last) == 5):
            self._text += self._last
        try:
            return base64.b64decode(self._text, validate=True)
        except ValueError as error:
            raise ValueError("an armored part is not valid base64") from error
