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


@dataclass(frozen=True, kw_only=True)
class Clear:
    """A clear-signed document's parts.

    ``text`` is what it says, lines ended by LF; ``signed`` is what its signature is over (lines
    joined by CRLF, no end of line after the last); ``signature`` is the armored signature.
    """

    text: bytes
    signed: bytes
    signature: bytes


def is_clear(document: bytes) -> bool:
    """Tell whether a document claims to be clear-signed."""
    return document.startswith(_BEGIN)


def split(document: bytes) -> Clear:
    """Take a clear-signed document apart. Raises ValueError unless it is one, and nothing else."""
    lines = [line.removesuffix(b"\r") for line in document.split(b"\n")]
    if lines[0].rstrip() != _BEGIN:
        raise ValueError("it is not clear-signed")
    at = 1
    while at < len(lines) and lines[at].strip():
        if not lines[at].startswith(b"Hash: "):
            raise ValueError("it has a header that does not belong there")
        at += 1
    body = lines[at + 1 :]
    ends = [number for number, line in enumerate(body) if line.rstrip() == _SIGNATURE]
    if len(ends) != 1:
        raise ValueError("it has no signature" if not ends else "it has two signatures")
    signature = b"\n".join(body[ends[0] :]).strip()
    if not signature.endswith(_END) or signature.count(b"-----BEGIN") != 1:
        raise ValueError("it goes on after its signature")
    text = [_unescaped(line) for line in body[: ends[0]]]
    return Clear(
        text=b"\n".join([*text, b""]),
        signed=b"\r\n".join(text),
        signature=signature + b"\n",
    )


def _unescaped(line: bytes) -> bytes:
    if b"\r" in line or b"\0" in line:
        raise ValueError("it has control characters")
    if line.startswith(b"- "):
        line = line[2:]
    elif line.startswith(b"-"):
        raise ValueError("it has a line that begins with a dash and is not marked so")
    # Blanks at the end of lines are not signed, so they are not handed on either.
    return line.rstrip(b" \t")
