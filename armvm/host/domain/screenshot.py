"""A screenshot of a machine's screen, as PNG."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib

import libvirt

from armvm.base.errors import DomainError
from armvm.host.connection import Connection, Domain, errors, is_code, not_running

_PNG = b"\x89PNG\r\n\x1a\n"
#: The header of a binary PPM with 8 bits per colour, as QEMU writes it.
_PPM = re.compile(rb"P6\s(?:#[^\n]*\n)?\s*(\d{1,5})\s+(\d{1,5})\s+255\s")


def take(connection: Connection, domain: Domain, *, screen: int = 0) -> bytes:
    """Return a picture of a running machine's screen as PNG.

    Raises DomainError if it is not running, or does not have that screen.
    """
    name = domain.name()
    parts: list[bytes] = []
    with errors(f"taking a screenshot of {name}"):
        if not domain.isActive():
            raise not_running(name)
        stream = connection.newStream(0)
        try:
            domain.screenshot(stream, screen, 0)
            stream.recvAll(lambda _stream, data, _opaque: parts.append(data), None)
            stream.finish()
        except BaseException as error:
            with contextlib.suppress(libvirt.libvirtError):
                stream.abort()
            if (
                isinstance(error, libvirt.libvirtError)
                and is_code(error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_INVALID_ARG)
                and "screen" in str(error)
            ):
                raise DomainError(
                    f"screen {screen} of {name} not found",
                    detail=str(error),
                    hint=f"a headless machine has only its console: armvm logs {name}, "
                    f"armvm console {name}; for a screen, use create --graphics",
                ) from error
            raise
    return to_png(b"".join(parts))


def to_png(picture: bytes) -> bytes:
    """Return a PNG unchanged, and a PPM (QEMU's only format before 7.1) as PNG.

    Raises DomainError for anything else.
    """
    if picture.startswith(_PNG):
        return picture
    head = _PPM.match(picture)
    width, height = (int(number) for number in head.groups()) if head else (0, 0)
    pixels = picture[head.end() :] if head else b""
    if not width or not height or len(pixels) != 3 * width * height:
        raise DomainError("libvirt sent an invalid screenshot", detail=repr(picture[:40]))
    # Each line of a PNG begins with its filter; 0 means none. Colour type 2: RGB.
    rows = (pixels[at : at + 3 * width] for at in range(0, len(pixels), 3 * width))
    return b"".join(
        [
            _PNG,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
            _chunk(b"IEND", b""),
        ]
    )


def size_of(png: bytes) -> tuple[int, int]:
    """Return a PNG's width and height, in pixels."""
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
