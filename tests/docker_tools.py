"""Docker for real: a daemon in a namespace with binfmt handlers of its own, and images for it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.docker import daemon
from benchmarks.world import LeftOut
from tests.foreign_programs import busybox, docker_engine
from tests.namespace_tools import holding
from tests.support import ARMVM, Result, armvm

#: The names that busybox has in images.
APPLETS = ("sh", "uname", "echo", "cat", "ls")


@dataclass(frozen=True, kw_only=True)
class Docker:
    """A daemon, and where commands run that meet the same handlers: *enter* brings them there."""

    enter: tuple[str, ...]
    env: Mapping[str, str]

    def armvm(self, *words: str | Path) -> Result:
        """Run armvm there."""
        return armvm(*words, prefix=(*self.enter, *ARMVM), env=self.env)

    def docker(
        self,
        *words: str | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run docker's client."""
        done = subprocess.run(
            [*self.enter, "docker", *map(str, words)],
            input=stdin,
            capture_output=True,
            env={**os.environ, **self.env, **(env or {})},
            timeout=timeout,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def ok(self, *words: str | Path, stdin: bytes = b"") -> str:
        """Run docker's client and return its output; it must succeed."""
        done = self.docker(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a container without a network."""
        return self.docker("run", "--rm", "--network", "none", *words)


@contextmanager
def docker_without_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    """Start Debian's dockerd in a user namespace in which no handler is registered.

    Skips the test where that is not possible.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root, as dockerd does")
    programs = docker_engine()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    # The paths of sockets are short, and those of pytest's directories are not.
    with TemporaryDirectory(prefix="armvm-docker-", dir="/var/tmp") as short, holding() as enter:
        try:
            with daemon(Path(short), enter=enter) as host:
                client = {"DOCKER_HOST": host, "DOCKER_CONFIG": str(Path(short) / "client")}
                yield Docker(enter=enter, env={**client, "PATH": os.environ["PATH"]})
        except LeftOut as error:
            pytest.skip(str(error))


def busybox_image(name: str, debian: str, *, command: Sequence[str] = ("sh",)) -> bytes:
    """Return an archive for ``docker load``: an image of Debian's static busybox alone.

    *debian* is Debian's architecture; an image for armhf has the variant v7.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(busybox(debian), "bin/busybox", filter=_roots)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": {"armhf": "arm"}.get(debian, debian),
        **({"variant": "v7"} if debian == "armhf" else {}),
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "armvm's tests"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for file, data in (
            ("manifest.json", json.dumps(manifest).encode()),
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
        ):
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def _roots(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755
    return entry
