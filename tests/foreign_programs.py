"""Real programs out of Debian's packages for tests, of other architectures too: fetched once."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
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
    told = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True)
    return program_of("docker.io", "usr/bin/docker", told.stdout.strip())


def program_of(package: str, path: str, architecture: str) -> Path:
    """Return a package's program, kept in the cache; the package is not installed.

    apt gets it from the host's own archives, with lists and cache of its own, so that the host
    does not learn of the architecture. Skips the test where there is no apt or no archive.
    """
    kept = cache_dir() / "test-programs" / f"{Path(path).name}-{architecture}"
    if kept.is_file():
        return kept
    if shutil.which("apt-get") is None:
        pytest.skip(f"needs apt-get, to fetch {package} for {architecture}")
    with tempfile.TemporaryDirectory(prefix="armvm-apt-") as name:
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
        for words in (["update"], ["download", package]):
            done = subprocess.run(
                [*apt, *words], cwd=place, capture_output=True, text=True, timeout=300, check=False
            )
            # One of several archives may be out of order: then the download says what is missing.
            if done.returncode != 0 and words[0] == "download":
                pytest.skip(f"apt-get {words[0]} for {architecture} failed: {done.stderr[-300:]}")
        (archive,) = place.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, place / "root"], check=True)
        found = next(one for one in place.glob(f"root/**/{path}") if one.is_file())
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".{kept.name}.{os.getpid()}")
        shutil.copyfile(found, partial)
        partial.chmod(0o755)
        partial.replace(kept)
    return kept
