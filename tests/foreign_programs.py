"""Real programs out of Debian's packages for tests, of other architectures too: fetched once."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from armvm.base.paths import cache_dir


def busybox(architecture: str) -> Path:
    """Return the static busybox of a Debian architecture (``arm64``, ``armhf``)."""
    return program_of("busybox-static", "bin/busybox", architecture)


def docker() -> Path:
    """Return a docker client for this host: its own, or the one of Debian's package."""
    found = shutil.which("docker")
    if found is not None:
        return Path(found)
    return program_of("docker.io", "usr/bin/docker", _own_architecture())


def docker_engine() -> Path:
    """Return a directory with Debian's docker for this host: client, daemon and what it starts."""
    kept = _kept("docker-engine")
    if not kept.is_dir():
        packages = ("docker.io", "containerd", "runc")
        with _unpacked(packages, _own_architecture(), of=kept.parent) as root:
            partial = root / "programs"
            partial.mkdir()
            for name in (*("docker", "dockerd", "containerd", "containerd-shim-runc-v2"), "runc"):
                found = next(one for one in root.glob(f"usr/*bin/{name}") if not one.is_symlink())
                found.rename(partial / name)
            with contextlib.suppress(FileExistsError):  # another test's were faster
                partial.rename(kept)
    return kept


def program_of(package: str, path: str, architecture: str) -> Path:
    """Return a package's program, kept in the cache; the package is not installed."""
    kept = _kept(f"{Path(path).name}-{architecture}")
    if not kept.is_file():
        with _unpacked([package], architecture, of=kept.parent) as root:
            found = next(one for one in root.glob(f"**/{path}") if one.is_file())
            found.chmod(0o755)
            found.replace(kept)
    return kept


def _kept(name: str) -> Path:
    return cache_dir() / "test-programs" / name


def _own_architecture() -> str:
    told = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True)
    return told.stdout.strip()


@contextmanager
def _unpacked(packages: Sequence[str], architecture: str, *, of: Path) -> Iterator[Path]:
    """Unpack Debian's packages into a directory in *of*, which goes at the end.

    apt gets them from the host's own archives, with lists and cache of its own, so that the host
    does not learn of the architecture. Skips the test where there is no apt or no archive.
    """
    if shutil.which("apt-get") is None:
        pytest.skip(f"needs apt-get, to fetch {', '.join(packages)} for {architecture}")
    of.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".armvm-apt-", dir=of) as name:
        place = Path(name)
        place.chmod(0o755)
        for below in ("state/lists/partial", "cache/archives/partial"):
            (place / below).mkdir(parents=True)
        (place / "status").touch()
        options = [
            f"APT::Architecture={architecture}",
            f"APT::Architectures={architecture}",
            f"Dir::State={place / 'state'}",
            f"Dir::State::status={place / 'status'}",
            f"Dir::Cache={place / 'cache'}",
            "APT::Sandbox::User=",
            "Acquire::Languages=none",
        ]
        apt = ["apt-get", "-qq", *(word for one in options for word in ("-o", one))]
        for words in (["update"], ["download", *packages]):
            done = subprocess.run(
                [*apt, *words], cwd=place, capture_output=True, text=True, timeout=300, check=False
            )
            # One of several archives may be out of order: then the download says what is missing.
            if done.returncode != 0 and words[0] == "download":
                pytest.skip(f"apt-get {words[0]} for {architecture} failed: {done.stderr[-300:]}")
        for archive in place.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive, place / "root"], check=True)
        yield place / "root"
