"""Debian's docker-registry, unpacked and not installed, and a server in front of it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt
import pytest


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def unpacked(directory: Path) -> Path:
    """Return docker-registry's program; skip the test if its package cannot be had."""
    words = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "docker-registry"]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    packages = list(directory.glob("docker-registry_*.deb"))
    if done.returncode or not packages:
        pytest.skip(f"docker-registry cannot be downloaded: {done.stderr.strip()[-200:]}")
    subprocess.run(["dpkg", "-x", packages[0], directory / "root"], check=True)
    return directory / "root/usr/bin/docker-registry"


@contextmanager
def serving(program: Path, directory: Path, password: str | None = None) -> Iterator[str]:
    """Run a registry; yield its host and port. With *password*, for the user ``ann``."""
    port = free_port()
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}, "level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if password is not None:
        line = b"ann:" + bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))
        (directory / "htpasswd").write_bytes(line + b"\n")
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", directory / "config.yml"], stdout=log, stderr=log
        )
    try:
        _wait_until_up(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "the registry ended"
        assert time.monotonic() < end, "the registry does not answer"
        time.sleep(0.1)


@dataclass
class Front:
    """A server that passes requests to a registry, and notes or spoils what it sees.

    It asks for a token like a registry with a token service, if *token* is set. It ends the answer
    to a blob after *cut* bytes, as long as *cuts* lasts; *spoil* changes a byte in each blob.
    """

    behind: str
    token: str | None = None
    cut: int = 0
    cuts: int = 0
    spoil: bool = False
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run it; yield its host and port."""
        front = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_words: object) -> None:
                pass

            def do_GET(self) -> None:
                front.answer(self)

            do_HEAD = do_POST = do_PUT = do_GET

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        own = handler.headers.get("Host", "")
        if handler.path.startswith("/token"):
            self.logins.append(handler.headers.get("Authorization", ""))
            self._send(handler, 200, {}, json.dumps({"token": self.token}).encode())
            return
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            asked = f'Bearer realm="http://{own}/token",service="test",scope="x"'
            self._send(handler, 401, {"WWW-Authenticate": asked}, b"")
            return
        self.requests.append(f"{handler.command} {handler.path}")
        if "Range" in handler.headers:
            self.ranges.append(handler.headers["Range"])
        connection = http.client.HTTPConnection(self.behind)
        kept = ("Accept", "Content-Type", "Range", "Content-Length")
        headers = {key: handler.headers[key] for key in kept if key in handler.headers}
        connection.request(handler.command, handler.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        told = {
            key: value.replace(self.behind, own)
            for key, value in response.getheaders()
            if key.lower() not in ("transfer-encoding", "connection")
        }
        connection.close()
        blob = "/blobs/sha256:" in handler.path and handler.command == "GET"
        if blob and self.spoil and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if blob and self.cuts and len(data) > self.cut:
            self.cuts -= 1
            data = data[: self.cut]
        with contextlib.suppress(OSError):
            self._send(handler, response.status, told, data)

    def _send(
        self,
        handler: http.server.BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        data: bytes,
    ) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        if "content-length" not in {key.lower() for key in headers}:
            handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True
