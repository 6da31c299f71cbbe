"""What is not verified yet costs little: memory and bytes are counted, never seconds.

Each hostile document is handed to what reads it, with Python's allocations traced; the servers
are real ones.
"""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import FetchFailed, ImageError, StorageError, Unreachable
from armvm.images.distros import debian, listing, lts, opensuse, simplestreams
from armvm.images.fetch import documents, json_document
from armvm.images.fetch import download as fetch
from armvm.images.fetch.part import Part
from armvm.images.trust import checksums, cleartext, keyring, packets
from tests.image_server import Fault, ImageServer
from tests.images_tools import Heard, quick

pytestmark = pytest.mark.unit

MIB = 1 << 20
MOST = 100.0


def peak(action: Callable[[], Any]) -> float:
    """Return the most MiB that *action* held at once; our errors are its right to raise."""
    tracemalloc.start()
    try:
        with suppress(ValueError, ImageError):
            action()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def filled(piece: bytes, size: int, head: bytes = b"", tail: bytes = b"") -> bytes:
    return head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


HEAD = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n"
TAIL = b"-----BEGIN PGP SIGNATURE-----\n\nabcd\n-----END PGP SIGNATURE-----\n"


@pytest.mark.parametrize("piece", [b"\n", b"\r\n", b" \n", b"- \n", b"x", b"-----BEGIN PGP "])
def test_a_clear_signed_document(piece: bytes) -> None:
    tail = b"\n" + TAIL
    document = filled(piece, documents.MAX_DOCUMENT, HEAD, tail)

    def read() -> None:
        parts = cleartext.split(document)
        assert len(parts.signed) < 3 * documents.MAX_DOCUMENT

    assert peak(read) < MOST - 16  # the document itself


def test_its_headers_are_few() -> None:
    with pytest.raises(ValueError, match="headers"):
        cleartext.split(filled(b"Hash: \n", MIB, HEAD[:-1], TAIL))


JSON = {
    "lists": (b"[],", b"[", b"0]"),
    "maps": (b"{},", b'{"products":[', b"0]}"),
    "floats": (b"1.5,", b"[", b"0]"),
    "escaped": (b"x", b'"', b'\\ud83d\\ude00"'),
    "wide": (b"x", b'"', '\U0001f600"'.encode()),
    "aliases": (b"a,", b'{"products":{"a":{"arch":"arm64","aliases":"', b'"}}}'),
    "deep": (b"[", b"", b""),
}


@pytest.mark.parametrize("kind", JSON)
def test_json(kind: str) -> None:
    piece, head, tail = JSON[kind]
    document = filled(piece, documents.MAX_DOCUMENT, head, tail)
    assert peak(lambda: simplestreams.images(document)) < MOST - 16


@pytest.mark.parametrize(
    "read",
    [
        lambda document: simplestreams.select(document, release="a"),
        simplestreams.products_path,
        lts.supported_lts,
        debian.serial_in,
    ],
    ids=["select", "index", "lts", "manifest"],
)
def test_all_that_reads_json(read: Callable[[bytes], Any]) -> None:
    document = filled(b"[],", documents.MAX_DOCUMENT, b"[", b"0]")
    assert peak(lambda: read(document)) < MOST - 16


def test_the_largest_json_that_is_read() -> None:
    row = b'{"a%07d":"b%07d"},'
    document = (
        b"[" + b"".join(row % (n, n) for n in range(json_document.MAX_VALUES // 2 - 2)) + b"0]"
    )
    read: list[Any] = []
    assert peak(lambda: read.append(json_document.load(document))) < MOST - 16
    assert len(read[0]) == json_document.MAX_VALUES // 2 - 1


OPEN, CLOSE = (b"-----%s PGP PUBLIC KEY BLOCK-----\n" % word for word in (b"BEGIN", b"END"))
KEYS = {
    "packets": (b"\xc2\x00", b"\xc6\x01\x04", b""),
    "keys": (b"\xc6\x01\x04", b"", b""),
    "lines": (b"\n", OPEN + b"\n", CLOSE),
    "blocks": (OPEN + b"\nxgEE\n" + CLOSE, b"", b""),
}


@pytest.mark.parametrize("kind", KEYS)
def test_the_answer_of_a_key_server(kind: str) -> None:
    piece, head, tail = KEYS[kind]
    data = filled(piece, keyring.MAX_ANSWER // 2, head, tail)
    assert peak(lambda: packets.certificates(data)) < MOST / 4


@pytest.mark.parametrize("piece", [b"\n", b"x" * 70 + b"\n", b"%s"])
def test_a_checksum_file(piece: bytes) -> None:
    lines = (b"%064x  %x\n" % (n, n) for n in range(documents.MAX_CHECKSUMS // 72))
    document = b"".join(lines) if piece == b"%s" else filled(piece, documents.MAX_CHECKSUMS)
    assert peak(lambda: checksums.digests(document)) < MOST / 2
    assert peak(lambda: opensuse.digest_in(document, "a", "16.0", "1")) < MOST / 2


def test_a_directory() -> None:
    page = b"".join(b'href="a%x"' % n for n in range(listing.MAX_LISTING // 13))
    assert peak(lambda: listing.names(page, "/")) < MOST


# ---- over HTTP ------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImageServer]:
    with ImageServer(tmp_path) as running:
        yield running


def fetched(server: ImageServer, fault: Fault) -> tuple[float, bytes]:
    """Return the MiB held while a document is fetched, and the document (empty if refused)."""
    server.fault("d", fault)
    body: list[bytes] = []

    def run() -> None:
        body.append(documents.document(quick(), f"{server.url}d", progress=Heard()))

    return peak(run), b"".join(body)


def test_a_document_that_unpacks_to_much(server: ImageServer) -> None:
    packed = gzip.compress(bytes(100 * MIB), 1)
    most, body = fetched(server, Fault(body=packed, encoding="gzip"))
    assert not body
    assert most < 60


def test_a_document_packed_again_and_again(server: ImageServer) -> None:
    packed = gzip.compress(b"x") * 400_000  # 8 MiB; a second member is not part of an answer
    most, body = fetched(server, Fault(body=packed, encoding="gzip"))
    assert (most < 60, body) == (True, b"x")


def test_a_compressed_document(server: ImageServer) -> None:
    assert (
        fetched(server, Fault(body=gzip.compress(b"text" * 9), encoding="gzip"))[1] == b"text" * 9
    )
    assert server.headers[-1]["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(body=b"x" * 10, encoding="gzip"), "cannot be decompressed"),
        (Fault(body=gzip.compress(b"x" * 999)[:-9], encoding="gzip"), "is truncated"),
        (Fault(body=b"x", encoding="br"), "unsupported encoding: 'br'"),
        (Fault(body=b"x", zeros=17 * MIB, no_length=True), "larger than 16.0 MiB"),
    ],
)
def test_documents_that_are_refused(server: ImageServer, fault: Fault, message: str) -> None:
    server.fault("d", fault)
    with pytest.raises(FetchFailed) as caught:
        documents.document(quick(), f"{server.url}d", progress=Heard())
    assert message in caught.value.message
    assert caught.value.exit_code == 8


@pytest.mark.parametrize(
    "fault",
    [Fault(body=b"x" * 100_000, drip=0.05), Fault(body=b"x", drip_head=0.05)],
    ids=["body", "headers"],
)
def test_a_server_that_drips_a_document(server: ImageServer, fault: Fault) -> None:
    server.fault("d", fault)
    with pytest.raises(Unreachable) as caught:
        documents.document(
            quick(slow_rate=1024.0, slow_window=0.6, read_timeout=0.6),
            f"{server.url}d",
            progress=Heard(),
        )
    assert caught.value.hint
    assert server.count("d") == 4, "as often as Web.attempts says"


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1/x",
        "http://127.0.0.1:port/x",
        "http://127.0.0.1:99999/",
        "http://[v1.a]/x",
        "http://\u2100.example/",
        "//[",
        "http://",
        "http://" + "a" * 300 + "/",
        "http://a..b/",
    ],
)
def test_a_redirect_to_nowhere(server: ImageServer, location: str) -> None:
    server.fault("d", Fault(status=302, location=location.encode().decode("latin-1")))
    with pytest.raises(ImageError) as caught:
        documents.document(quick(), f"{server.url}d", progress=Heard())
    assert caught.value.exit_code == 8
    assert caught.value.hint


def test_a_redirect_with_a_body(server: ImageServer) -> None:
    server.fault("d", Fault(status=302, location="e", zeros=100 * MIB))
    server.fault("e", Fault(body=b"text"))
    answers: list[bytes] = []
    url = f"{server.url}d"
    assert peak(lambda: answers.append(documents.document(quick(), url, progress=Heard()))) < 20
    assert answers == [b"text"]


# ---- images ---------------------------------------------------------------------------------


def download(server: ImageServer, tmp_path: Path, room: Callable[[int], None]) -> Part:
    part = Part(tmp_path / "part")
    fetch.download(
        quick(),
        f"{server.url}d",
        part,
        tmp_path / "unpacked",
        label="d",
        progress=Heard(),
        room=room,
    )
    return part


def test_an_image_of_unknown_length_ends_where_the_room_does(
    server: ImageServer, tmp_path: Path
) -> None:
    server.fault("d", Fault(body=b"x", zeros=300 * MIB, no_length=True))
    asked: list[int] = []

    def room(count: int) -> None:
        asked.append(count)
        if len(asked) > 2:
            raise StorageError("full")

    with pytest.raises(StorageError):
        download(server, tmp_path, room)
    assert asked == [64 * MIB] * 3
    assert not (tmp_path / "part").exists()


def test_an_image_of_unknown_length_has_a_limit(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "MAX_IMAGE", 20 * MIB)
    server.fault("d", Fault(body=b"x", zeros=300 * MIB, no_length=True))
    with pytest.raises(FetchFailed, match="larger than"):
        download(server, tmp_path, lambda _: None)
    assert not (tmp_path / "part").exists()


def test_an_image_that_says_that_it_is_too_large(server: ImageServer, tmp_path: Path) -> None:
    server.fault("d", Fault(body=b"x", length=fetch.MAX_IMAGE + 1))
    with pytest.raises(FetchFailed, match="larger than 64"):
        download(server, tmp_path, lambda _: None)
    assert server.count("d") == 1
