"""Download and verify an image from a server on loopback, compared with curl and sha256sum."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from armvm.base.process import run
from benchmarks.case import Case, Figure, Reading
from benchmarks.world import TIMEOUT, World, need

#: The image's size in bytes.
SIZE = 512 << 20

#: Serves a directory until its input ends. It is a separate process, so that it does not share a
#: Python lock with the measured process, and it uses sendfile.
_SERVER = """
import http.server, os, socket, sys, threading
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def copyfile(self, source, target):
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        size, at = os.fstat(source.fileno()).st_size, 0
        while at < size:
            at += os.sendfile(self.connection.fileno(), source.fileno(), at, size - at)
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
threading.Thread(target=sys.stdin.read, daemon=True).start()
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
os._exit(0)
"""

#: Runs commands and prints their seconds and peak memory in KiB.
_MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
for words in json.loads(sys.argv[1]):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def _fetch(world: World) -> list[Reading]:
    """Download the image with both, each into an empty directory, in alternating order."""
    place = world.directory / "fetch"
    image, digest = _image(place)
    with _served(place) as base:
        url = f"{base}{image.name}"
        ways = {
            "fetch": lambda: _armvm(world, place / "cache", f"{url}#sha256={digest}"),
            "fetch-curl": lambda: _curl(place / "copy", url),
        }
        order = list(ways)
        if len(list(place.glob("round-*"))) % 2:
            order.reverse()
        (place / f"round-{os.urandom(4).hex()}").touch()
        found = {key: ways[key]() for key in order}
    seconds = {key: one[0] for key, one in found.items()}
    return [
        Reading(figure="fetch", value=seconds["fetch"]),
        Reading(figure="fetch-curl", value=seconds["fetch-curl"]),
        Reading(figure="fetch-memory", value=found["fetch"][1] / 1024),
    ]


def _armvm(world: World, cache: Path, reference: str) -> tuple[float, float]:
    try:
        words = [world.armvm, "image", "pull", "--quiet", reference]
        return _measured([words], XDG_CACHE_HOME=str(cache))
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _curl(place: Path, url: str) -> tuple[float, float]:
    place.mkdir()
    try:
        file = str(place / "image")
        return _measured([["curl", "-sfo", file, url], ["sha256sum", file]])
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _measured(commands: list[list[str]], **env: str) -> tuple[float, float]:
    """Run commands one after the other; return their seconds and peak memory in KiB."""
    words = [sys.executable, "-c", _MEASURE, json.dumps(commands)]
    env = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **env}
    seconds, memory = json.loads(run(words, env=env, timeout=TIMEOUT).text)
    return float(seconds), float(memory)


def _image(place: Path) -> tuple[Path, str]:
    """Return an incompressible qcow2 image of SIZE bytes, and its sha256; created once."""
    image, known = place / "image.qcow2", place / "digest"
    if not known.exists():
        place.mkdir(exist_ok=True)
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1G"])
        with image.open("ab") as file:
            while (left := SIZE - file.tell()) > 0:
                file.write(os.urandom(min(left, 1 << 20)))
        sha256 = hashlib.sha256()
        with image.open("rb") as file:
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
        known.write_text(sha256.hexdigest())
    return image, known.read_text()


@contextmanager
def _served(directory: Path) -> Iterator[str]:
    """Serve a directory's files on loopback; yield the base URL."""
    import subprocess

    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdin is not None  # noqa: S101 - both are pipes
        assert server.stdout is not None  # noqa: S101
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}/"
        finally:
            server.stdin.close()


def _problem(_: World) -> str | None:
    return need(("curl", "apt-get install curl"), ("sha256sum", "apt-get install coreutils"))


CASES = [
    Case(
        group="fetch",
        figures=(
            Figure(key="fetch", title="armvm image pull, 512 MiB from loopback, verified"),
            Figure(key="fetch-curl", title="curl -O, then sha256sum, same file"),
            Figure(key="fetch-memory", title="peak memory of image pull", unit="MiB"),
        ),
        run=_fetch,
        why_not=_problem,
    )
]
