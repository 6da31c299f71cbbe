"""Clear-signed documents: text that carries its own signature (RFC 9580, section 7).

The form is taken apart here, strictly, and the signature is then verified as a detached one over
exactly the text that is handed on. Programs that verify such a document as a whole have been made
to vouch for one text while another was read: by text before and after, by odd headers, by control
characters.
"""

from __future__ import annotations

from dataclasses import dataclass

_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"

#: The most headers: gpg writes one for each digest that is used.
_MAX_HEADERS = 16

#: Bytes of text that are looked at together; a longer line is one piece.
_PIECE = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Clear:
    """A clear-signed document's parts.

    ``text`` is what it says, lines ended by LF; ``signature`` is the armored signature.
    """

    text: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """What the signature is over: lines joined by CRLF, no end of line after the last."""
        return self.text[:-1].replace(b"\n", b"\r\n")


def is_clear(document: bytes) -> bool:
    """Tell whether a document claims to be clear-signed."""
    return document.startswith(_BEGIN)


def split(document: bytes) -> Clear:
    """Take a clear-signed document apart. Raises ValueError unless it is one, and nothing else.

    Nothing is verified yet, so it takes no more memory than three documents: it never holds all
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
            raise ValueError("it has a header that does not belong there")
    else:
        raise ValueError("it has too many headers")
    body = end + 1
    found = _signature_line(document, body)
    if found is None:
        raise ValueError("it has no signature, or is cut short before it")
    if _signature_line(document, found + 1) is not None:
        raise ValueError("it has two signatures")
    signature = document[found:].strip()
    if _END not in signature:
        raise ValueError("it is cut short: its signature has no end")
    if not signature.endswith(_END) or signature.count(b"-----BEGIN") != 1:
        raise ValueError("it goes on after its signature")
    return Clear(text=_text(document, body, found), signature=signature + b"\n")


def _line(document: bytes, start: int) -> tuple[int, int]:
    """Return where the line that begins at *start* begins and ends, without its line end."""
    end = document.find(b"\n", start)
    return start, len(document) if end < 0 else end


def _signature_line(document: bytes, start: int) -> int | None:
    """Return where the next line that opens a signature begins; None if there is none."""
    while (start := document.find(_SIGNATURE, start)) >= 0:
        end = _line(document, start)[1]
        if document[start - 1 : start] == b"\n" and document[start:end].rstrip() == _SIGNATURE:
            return start
        start += 1
    return None


def _text(document: bytes, start: int, end: int) -> bytes:
    """Return the lines between two places, unescaped, each ended by LF."""
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
    """Return some lines without the marks before dashes and the blanks at the ends.

    Blanks at the end of lines are not signed, so they are not handed on either.
    """
    piece = b"\n" + piece
    if piece.count(b"\n-") != piece.count(b"\n- "):
        raise ValueError("it has a line that begins with a dash and is not marked so")
    piece = piece.replace(b"\n- ", b"\n")
    # Old programs write a blank after each comma; more than a few are somebody's ill will.
    for _ in range(3):
        piece = piece.replace(b" \n", b"\n")
    if b" \n" in piece or b"\t\n" in piece:
        piece = b"\n".join(line.rstrip(b" \t") for line in piece.split(b"\n"))
    return piece[1:]
