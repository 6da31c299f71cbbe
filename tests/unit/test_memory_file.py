"""The header of libvirt's save image: XML replaced, the rest unchanged, unknown ones refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from armvm.base.errors import ArmvmError, DomainError, MissingCapability
from armvm.host.memory.save_image import describe

HEADER = struct.Struct("<16sIIIII14I")
XML, COOKIE = b"<domain>an older description</domain>", b"<qemuStatusCookie/>"


def head(*, pad: int = 64, cookie: bytes = COOKIE, **changes: Any) -> bytes:
    """Return the beginning of a save image as libvirt writes it, with some fields changed."""
    data = XML + b"\0" + (cookie + b"\0" if cookie else b"") + bytes(pad)
    fields = {
        "magic": b"LibvirtQemudSave",
        "version": 2,
        "length": len(data),
        "running": 1,
        "format": 0,
        "offset": len(XML) + 1 if cookie else 0,
    } | changes
    return HEADER.pack(*fields.values(), *([0] * 14)) + data


@pytest.mark.parametrize("xml", [b"<domain/>", XML + b"a little longer"], ids=["shorter", "longer"])
def test_the_xml_is_replaced_and_the_cookie_kept(xml: bytes) -> None:
    before = head()
    after = describe(before, xml)
    assert len(after) == len(before), "QEMU's stream begins where it did"
    fields = HEADER.unpack_from(after)
    assert fields[:5] == HEADER.unpack_from(before)[:5]
    data = after[HEADER.size :]
    assert data.split(b"\0", 1)[0] == xml
    assert data[fields[5] :].split(b"\0", 1)[0] == COOKIE
    assert not data[len(xml) + len(COOKIE) + 2 :].strip(b"\0")


def test_an_image_without_a_cookie() -> None:
    after = describe(head(cookie=b""), b"<domain/>")
    assert HEADER.unpack_from(after)[5] == 0
    assert after[HEADER.size :].rstrip(b"\0") == b"<domain/>"


def test_a_description_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DomainError, match="does not fit"):
        describe(head(pad=10), XML + b"x" * 11)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"version": 1},
        {"magic": b"LibvirtQemudPart"},
        {"format": 6},
        {"format": 4_000_000_000},
    ],
)
def test_an_unknown_kind_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MissingCapability, match="unsupported save image"):
        describe(head(**changes), b"<domain/>")


@pytest.mark.parametrize(
    "broken",
    [b"", head()[:50], head(length=1 << 31), head(offset=1 << 20)],
    ids=["empty", "cut off", "length", "offset"],
)
def test_a_head_that_makes_no_sense_is_refused(broken: bytes) -> None:
    with pytest.raises(ArmvmError):
        describe(broken, b"<domain/>")
