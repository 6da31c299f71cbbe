"""A pool and images of the tests' own, so that the host's machines are left alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.libvirt.world import World, make_image, virsh
from tests.support import fresh_name


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Directories that stand in for the user's own."""
    parent = tmp_path_factory.mktemp("home")
    return {f"XDG_{kind}_HOME": str(parent / kind) for kind in ("CACHE", "DATA", "CONFIG")}


@pytest.fixture(autouse=True)
def own_homes(homes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tester's cache, keys and settings out of the tests."""
    for variable, path in homes.items():
        monkeypatch.setenv(variable, path)


@pytest.fixture(scope="session")
def world(connection: Any) -> Iterator[World]:
    """A pool that is made and removed by the tests."""
    pool = fresh_name("armvm-pool")
    directory = Path("/var/lib/libvirt/images") / pool
    virsh("pool-define-as", pool, "dir", "--target", directory)
    try:
        virsh("pool-build", pool)
        virsh("pool-start", pool)
        directory.chmod(0o711)
        yield World(connection=connection, pool=pool, directory=directory)
    finally:
        virsh("pool-destroy", pool, check=False)
        virsh("pool-undefine", pool)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image that cannot boot."""
    return make_image(tmp_path_factory.mktemp("image") / "small.qcow2")


@pytest.fixture(scope="session")
def big_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An image that takes a while to upload."""
    path = make_image(tmp_path_factory.mktemp("image") / "big.qcow2", size=320 << 20)
    yield path
    path.unlink()
