"""Clear-signed documents: text that contains its own signature (RFC 9580, section 7).

This module splits the document strictly, and the signature is then verified as a detached one
over exactly the text that armvm uses. Programs that verify such a document as a whole have been
tricked into verifying one text while another was read: by text before and after, by odd headers,
by control characters.
"""

from __future__ import annotations

from dataclasses import dataclass

_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"

#: Maximum number of headers: gpg writes one for each digest algorithm.
_MAX_HEADERS = 16

#: Bytes of text to process together; a longer line is one piece.
_PIECE = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Clear:
    """The parts of a clear-signed document.

    ``text`` is the signed text, lines ended by LF; ``signature`` is the armored signature.
    """

    text: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The bytes that are signed: lines joined by CRLF, without a final line end."""
        return self.text[:-1].replace(b"\n", b"\r\n")


def is_clear(document: bytes) -> bool:
    """Return whether a document claims to be clear-signed."""
    return document.startswith(_BEGIN)


def split(document: bytes) -> Clear:
    """Split a clear-signed document. Raises ValueError if it is anything else.

    Nothing is verified yet, so it uses at most the memory of three documents: it never holds all
    lines at once.
    """
    document = document.replace(b"\r\n", b"\n").removesuffix(b"\r")
    start, end = _line(document, 0)
    if document[start:end].rstrip() != _BEGIN:
        raise ValueError("it is not clear-signed")
    for _ in range(_MAX_HEADERS):
        start, end = _line(document, end + 1)
        if not document[start:end].strip():
            break
        if not document.startswith(b"Hash: ", start, end):
            raise ValueError("it has an unexpected header")
    else:
        raise ValueError("it has too many headers")
    body = end + 1
    found = _signature_line(document, body)
    if found is None:
        raise ValueError("its signature is missing or truncated")
    if _signature_line(document, found + 1) is not None:
        raise ValueError("it has two signatures")
    signature = document[found:].strip()
    if _END not in signature:
        raise ValueError("it is truncated: the end of its signature is missing")
    if not signature.endswith(_END) or signature.count(b"-----BEGIN") != 1:
        raise ValueError("it has text after its signature")
    return Clear(text=_text(document, body, found), signature=signature + b"\n")


def _line(document: bytes, start: int) -> tuple[int, int]:
    """Return the start and end of the line that starts at *start*, without its line end."""
    end = document.find(b"\n", start)
    return start, len(document) if end < 0 else end


def _signature_line(document: bytes, start: int) -> int | None:
    """Return where the next line that opens a signature starts, or None."""
    while (start := document.find(_SIGNATURE, start)) >= 0:
        end = _line(document, start)[1]
        if document[start - 1 : start] == b"\n" and document[start:end].rstrip() == _SIGNATURE:
            return start
        start += 1
    return None


def _text(document: bytes, start: int, end: int) -> bytes:
    """Return the lines between two positions, unescaped, each ended by LF."""
    text = bytearray()
    while start < end:
        stop = document.find(b"\n", min(start + _PIECE, end - 1), end) + 1 or end
        piece = document[start:stop]
        start = stop
        if b"\r" in piece or b"\0" in piece:
            raise ValueError("it has control characters")
        text += _unescaped(piece)
    return bytes(text)


def _unescaped(piece: bytes) -> bytes:
    """Return lines without dash escapes and trailing blanks.

    Trailing blanks are not signed, so they are not returned.
    """
    piece = b"\n" + piece
    if piece.count(b"\n-") != piece.count(b"\n- "):
        raise ValueError("it has an unescaped line that starts with a dash")
    piece = piece.replace(b"\n- ", b"\n")
    # Old programs write a blank after each comma; more than a few suggest an attack.
    for _ in range(3):
        piece = piece.replace(b" \n", b"\n")
    if b" \n" in piece or b"\t\n" in piece:
        piece = b"\n".join(line.rstrip(b" \t") for line in piece.split(b"\n"))
    return piece[1:]
