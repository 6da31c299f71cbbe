"""A package archive for tests, signed by a key of their own, as a real mirror is laid out."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from armvm.base.poll import until
from armvm.provision.image.workspace import PREFIX, SHARED
from tests.openpgp_tools import Gpg

#: For tests that begin a build: it needs what `armvm doctor` lists for it.
can_build = pytest.mark.skipif(
    shutil.which("mmdebstrap") is None or os.geteuid() != 0,
    reason="needs mmdebstrap, and root, who registers the binfmt handler",
)


def left_by_builds() -> list[Path]:
    """Return the builds' directories that no running build holds, in the directory they share.

    Other tests build there at the same time, so one that is in use is waited for.
    """

    def unheld(work: Path) -> bool:
        try:
            directory = os.open(work, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(directory)
        return work.exists()

    def left() -> list[Path]:
        return [work for work in SHARED.glob(f"{PREFIX}*") if unheld(work)]

    until(lambda: not left(), timeout=5, interval=0.1)
    return left()


def lay_out(
    root: Path,
    gpg: Gpg,
    key: str,
    *,
    suites: tuple[str, ...],
    components: tuple[str, ...],
    packages: dict[str, int],
) -> None:
    """Make an arm64 archive below *root*; *packages* gives installed sizes in KiB.

    The packages are in the first suite's components by turns; their files are not there.
    """
    for suite in suites:
        home = root / "dists" / suite
        sums = []
        for component in components:
            stanzas = [
                f"Package: {name}\nVersion: 1\nArchitecture: arm64\nMaintainer: T <t@example.org>\n"
                f"Installed-Size: {size}\nFilename: pool/{name}_1_arm64.deb\nSize: 1000\n"
                f"SHA256: {'0' * 64}\nDescription: none\n"
                for number, (name, size) in enumerate(packages.items())
                if (suite, component) == (suites[0], components[number % len(components)])
            ]
            name = f"{component}/binary-arm64/Packages"
            (home / name).parent.mkdir(parents=True)
            data = "\n".join(stanzas).encode()
            (home / name).write_bytes(data)
            sums.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}")
        release = (
            f"Origin: Test\nSuite: {suite}\nCodename: {suite}\nArchitectures: arm64\n"
            f"Components: {' '.join(components)}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
            + "\n".join(sums)
            + "\n"
        )
        (home / "InRelease").write_bytes(gpg.clear(key, release.encode()))


@contextmanager
def served(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a directory on the loopback; yields its URL, and the paths that are asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root))) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
