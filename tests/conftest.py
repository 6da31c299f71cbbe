"""Layers, and what the tests of several files share."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import armvm, fresh_name

# No time limits: the machines are shared and noisy. In CI the same examples every time; new ones
# are looked for at home.
settings.register_profile(
    "armvm",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("armvm")

LAYERS = ("unit", "expected", "libvirt", "boot", "remote")
#: Seconds for one test, where the general limit is far too patient.
TIMEOUTS = {"unit": 120, "expected": 120, "libvirt": 400, "remote": 900}


def pytest_configure() -> None:
    """Take signals as a program started from a terminal does, and so do all that tests start.

    Whoever runs the tests in the background (nohup, a shell without job control) has them start
    with SIGHUP or SIGINT ignored, which children inherit.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-expected",
        action="store_true",
        help="rewrite the recorded files in tests/expected",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with the layer whose directory it lies in, and run cheap layers first."""
    here = Path(__file__).parent
    for item in items:
        for layer in LAYERS:
            if item.path.is_relative_to(here / layer):
                item.add_marker(layer)
                if layer in TIMEOUTS and item.get_closest_marker("timeout") is None:
                    item.add_marker(pytest.mark.timeout(TIMEOUTS[layer]))
    order = {layer: number for number, layer in enumerate(LAYERS)}
    items.sort(
        key=lambda item: min(
            (order[m.name] for m in item.iter_markers() if m.name in order), default=0
        )
    )


@pytest.fixture(scope="session")
def connection() -> Iterator[Any]:
    """A connection to the real system daemon."""
    from armvm.host.connection import connect

    connection = connect("qemu:///system")
    yield connection
    connection.close()


@pytest.fixture
def name() -> Iterator[str]:
    """A machine's name for one test; whatever was made under it is removed afterwards."""
    chosen = fresh_name()
    yield chosen
    armvm("delete", "--yes", chosen, "--connect", "qemu:///system")


@pytest.fixture(scope="session")
def blank_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A qcow2 image with nothing in it: enough for guests that need not boot."""
    path = tmp_path_factory.mktemp("image") / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    return path


@pytest.fixture(scope="session")
def debian_image() -> Path:
    """The Debian arm64 image that armvm builds; from the user's cache if it is there."""
    built = armvm("image", "build", "debian-12", "--json", timeout=1500).ok().json
    return Path(built["path"])
