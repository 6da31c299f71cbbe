"""A real HTTP server on loopback with the layout of Ubuntu's image server, faults included.

::

    tree = ubuntu_tree(root, image)              # index, products, SHA256SUMS, the image itself
    with ImageServer(root) as server:
        server.fault(tree.path, Fault(status=500), times=2)
        create("--image", "ubuntu:24.04", env={"ARMVM_MIRROR_UBUNTU": server.url})

By hand: ``python -m tests.image_server ROOT IMAGE`` serves IMAGE as ubuntu:24.04 until Ctrl-C.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

CODENAMES = {"20.04": "focal", "22.04": "jammy", "24.04": "noble", "25.10": "questing"}
PRODUCTS = "streams/v1/com.ubuntu.cloud:released:download.json"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with an answer; several can be combined.

    ``status``: this code instead of 200 (with ``location`` as the Location header).
    ``cut``: so many bytes of the body, then the connection is closed. ``reset``: the connection
    is reset (after ``cut`` bytes, if given). ``no_length``: no Content-Length, so that a cut
    cannot be told from the end. ``delay``: seconds of silence first. ``chunk_delay``: seconds
    between pieces of 64 KiB. ``hold``: an event to wait for (60 s at most) before the body.
    ``body``: these bytes instead of the file's. ``no_range``: Range is not known here. ``etag``:
    this one instead of the file's own ("" for none). ``no_date``: no Last-Modified. ``length``: the
    Content-Length claimed. ``content_range``: the Content-Range claimed of a 206. ``retry_after``:
    with a status, what the client shall wait. ``drip``: the body comes byte by byte, each after so
    many seconds. ``drip_head``: a header comes so, without end. ``encoding``: the Content-Encoding
    claimed. ``zeros``: so many zeros instead of the file, made as they are sent.
    """

    status: int = 200
    location: str | None = None
    cut: int | None = None
    reset: bool = False
    no_length: bool = False
    delay: float = 0.0
    chunk_delay: float = 0.0
    hold: threading.Event | None = None
    body: bytes | None = None
    no_range: bool = False
    etag: str | None = None
    no_date: bool = False
    length: int | None = None
    content_range: str | None = None
    retry_after: str | None = None
    drip: float = 0.0
    drip_head: float = 0.0
    encoding: str | None = None
    zeros: int = 0


class ImageServer:
    """Serves the files below *root* on 127.0.0.1 while its context is entered.

    Range and If-Range are understood as RFC 9110 says, one range at a time. ``url`` is its base,
    with a slash at the end. ``requests`` lists the paths asked for, in order, without the leading
    slash, and ``headers`` the headers of each; ``statuses`` what they were answered.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self._faults: dict[str, list[Fault]] = {}
        self._always: dict[str, Fault] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def url(self) -> str:
        """The server's base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def fault(self, path: str, fault: Fault, *, times: int | None = None) -> None:
        """Let the next *times* answers for *path* (all, by default) go wrong."""
        with self._lock:
            if times is None:
                self._always[path] = fault
            else:
                self._faults.setdefault(path, []).extend([fault] * times)

    def mend(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()
            self._always.clear()

    def count(self, path: str) -> int:
        """Return how often *path* was asked for."""
        with self._lock:
            return self.requests.count(path)

    def ranges(self, path: str) -> list[str | None]:
        """Return the Range headers of all requests for *path*, in order."""
        with self._lock:
            pairs = zip(self.requests, self.headers, strict=True)
            return [headers.get("Range") for one, headers in pairs if one == path]

    def take(self, path: str, headers: dict[str, str]) -> Fault:
        """Note a request and return what its answer suffers from."""
        with self._lock:
            self.requests.append(path)
            self.headers.append(headers)
            queue = self._faults.get(path)
            return queue.pop(0) if queue else self._always.get(path, Fault())

    @property
    def closing(self) -> bool:
        """Whether the server is about to end."""
        return self._closing.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than the server lives."""
        self._closing.wait(seconds)

    def __enter__(self) -> ImageServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 32
    owner: ImageServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests; anything else is worth seeing."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 60

    def do_GET(self) -> None:
        """Answer with a file below the root, or with what the path's fault says."""
        owner = self.server.owner
        # A client that takes us for its proxy sends a whole URL.
        path = unquote(urlsplit(self.path).path).lstrip("/")
        fault = owner.take(path, dict(self.headers.items()))
        owner.wait(fault.delay)
        if fault.reset and fault.cut is None:
            self._reset()
            return
        if fault.drip_head:
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
            while not owner.closing:
                self.wfile.write(b"x")
                owner.wait(fault.drip_head)
            return
        # Names only: the tree may hold links to an image elsewhere.
        file = owner.root / path
        if path.endswith("/"):
            file /= "index.html"
        known = ".." not in path.split("/") and file.is_file()
        if fault.status != 200 or (fault.body is None and not known):
            self._refuse(fault.status if fault.status != 200 else 404, fault)
            return
        self._send(file, fault)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: ImageServer.requests has it."""

    def send_response(self, code: int, message: str | None = None) -> None:
        """Note the status, and send it."""
        self.server.owner.statuses.append(code)
        super().send_response(code, message)

    def _refuse(self, status: int, fault: Fault) -> None:
        body = f"{status}\n".encode()
        self.send_response(status)
        if fault.location is not None:
            self.send_header("Location", fault.location)
        if fault.retry_after is not None:
            self.send_header("Retry-After", fault.retry_after)
        self.send_header("Content-Length", str(fault.zeros or len(body)))
        self.end_headers()
        if fault.zeros:
            self._zeros(fault.zeros)
        elif self.command != "HEAD":
            self.wfile.write(body)

    def _zeros(self, count: int) -> None:
        for _ in range(count >> 20):
            self.wfile.write(bytes(1 << 20))

    def _send(self, file: Path, fault: Fault) -> None:
        size = len(fault.body) if fault.body is not None else file.stat().st_size
        etag, date = self._validators(file, fault)
        start = 0 if fault.no_range else self._start(etag, date)
        if start >= size > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/octet-stream")
        if start:
            claim = fault.content_range or f"bytes {start}-{size - 1}/{size}"
            self.send_header("Content-Range", claim)
        if fault.encoding:
            self.send_header("Content-Encoding", fault.encoding)
        if etag:
            self.send_header("ETag", etag)
        if date:
            self.send_header("Last-Modified", date)
        if not fault.no_length:
            length = size - start if fault.length is None else fault.length
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.hold:
            fault.hold.wait(60)
        left = size - start if fault.cut is None else min(fault.cut, size - start)
        if fault.zeros:
            self._zeros(fault.zeros)
            left = 0
        if fault.drip:
            while left and not self.server.owner.closing:
                self.wfile.write(b"x")
                self.server.owner.wait(fault.drip)
                left -= 1
        if fault.body is not None:
            self.wfile.write(fault.body[start : start + left])
            left = 0
        else:
            with file.open("rb") as source:
                source.seek(start)
                while left and (chunk := source.read(min(left, 64 << 10))):
                    self.wfile.write(chunk)
                    left -= len(chunk)
                    if fault.chunk_delay:
                        self.server.owner.wait(fault.chunk_delay)
        if fault.reset:
            self.wfile.flush()
            time.sleep(0.1)  # so that the client has read what was sent
            self._reset()

    def _validators(self, file: Path, fault: Fault) -> tuple[str, str]:
        """Return ETag and Last-Modified; empty texts for those that are not sent."""
        if fault.body is not None:
            return fault.etag or "", ""
        status = file.stat()
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        date = "" if fault.no_date else formatdate(status.st_mtime, usegmt=True)
        return (etag if fault.etag is None else fault.etag), date

    def _start(self, etag: str, date: str) -> int:
        """Return where the answer begins: what Range says, if If-Range holds."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if found is None or condition not in (None, etag or None, date or None):
            return 0
        return int(found[1])

    def _reset(self) -> None:
        # Lingering for 0 s makes close() send RST.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        """Close; after a reset there is nothing to flush."""
        if self.connection.fileno() >= 0:
            super().finish()


@dataclass(frozen=True, kw_only=True)
class Published:
    """An image in a tree: ``path`` is relative to the base, ``digest`` is hex, ``size`` bytes."""

    path: str
    digest: str
    size: int
    serial: str


def ubuntu_tree(
    root: Path,
    image: Path,
    version: str = "24.04",
    serial: str = "20260911",
    *,
    codename: str | None = None,
    aliases: str | None = None,
    item: str = "disk1.img",
    digest: str | None = None,
    size: int | None = None,
    sha256: str | None = None,
) -> Published:
    """Lay *image* out below *root* as that serial of a release; call again to add more.

    The image is linked, not copied. *digest* and *size* are what the catalog shall claim,
    against the truth if a test wants it; *sha256* is the true one where the caller knows it.
    """
    name = codename or CODENAMES.get(version, "unknown")
    true = sha256 or _sha256(image)
    true_size = image.stat().st_size
    path = f"server/releases/{name}/release-{serial}/ubuntu-{version}-server-cloudimg-arm64.img"
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(image.resolve(), target)
    except OSError:  # another file system
        target.symlink_to(image.resolve())
    (target.parent / "SHA256SUMS").write_text(f"{digest or true} *{target.name}\n")
    _add_product(
        root,
        version=version,
        codename=name,
        aliases=aliases or _aliases(version, name),
        serial=serial,
        item=item,
        facts={
            "ftype": item,
            "path": path,
            "sha256": digest or true,
            "size": true_size if size is None else size,
        },
    )
    return Published(path=path, digest=true, size=true_size, serial=serial)


def _add_product(
    root: Path,
    *,
    version: str,
    codename: str,
    aliases: str,
    serial: str,
    item: str,
    facts: dict[str, object],
) -> None:
    products_file = root / PRODUCTS
    products_file.parent.mkdir(parents=True, exist_ok=True)
    document: Any = (
        json.loads(products_file.read_text())
        if products_file.exists()
        else {
            "content_id": "com.ubuntu.cloud:released:download",
            "datatype": "image-downloads",
            "format": "products:1.0",
            "license": "http://www.canonical.com/intellectual-property-policy",
            "products": {},
            "updated": "Fri, 11 Sep 2026 07:41:05 +0000",
        }
    )
    for arch in ("amd64", "arm64"):
        product = document["products"].setdefault(
            f"com.ubuntu.cloud:server:{version}:{arch}",
            {
                "aliases": aliases,
                "arch": arch,
                "os": "ubuntu",
                "release": codename,
                "release_codename": codename.capitalize(),
                "release_title": f"{version} LTS" if version.endswith(".04") else version,
                "support_eol": "2031-04-25",
                "supported": True,
                "version": version,
                "versions": {},
            },
        )
        own = dict(facts)
        if arch == "amd64":
            # Never to be taken: another path, another digest.
            own["path"] = str(facts["path"]).replace("arm64", "amd64")
            own["sha256"] = "a" * 64
        product["versions"].setdefault(
            serial,
            {
                "items": {},
                "label": "release",
                "pubname": f"ubuntu-{codename}-{version}-{arch}-server-{serial}",
            },
        )["items"][item] = own
    products_file.write_text(json.dumps(document, indent=1))
    index = {
        "format": "index:1.0",
        "index": {
            "com.ubuntu.cloud:released:download": {
                "datatype": "image-downloads",
                "format": "products:1.0",
                "path": PRODUCTS,
                "products": sorted(document["products"]),
                "updated": "Fri, 11 Sep 2026 07:41:05 +0000",
            },
        },
        "updated": "Fri, 11 Sep 2026 07:41:05 +0000",
    }
    (root / "streams/v1/index.json").write_text(json.dumps(index, indent=1))


def _aliases(version: str, codename: str) -> str:
    extra = ",default,lts" if version == "24.04" else ""
    return f"{version}{extra},{codename[0]},{codename}"


def _sha256(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def main(argv: list[str]) -> None:
    """Serve an image by hand."""
    root, image = Path(argv[1]), Path(argv[2])
    root.mkdir(parents=True, exist_ok=True)
    ubuntu_tree(root, image)
    with ImageServer(root) as server:
        print(f"export ARMVM_MIRROR_UBUNTU={server.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv)
