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

from tests import groups
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

LAYERS = ("unit", "expected", "libvirt", "boot", "remote", "hosts", "cloud")
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
    parser.addoption(
        "--record-hosts",
        type=Path,
        metavar="FILE",
        help="write into FILE what worked on which other host; docs/hosts.md is made of it",
    )
    parser.addoption(
        "--keep-hosts",
        action="store_true",
        help="take the other hosts as earlier tests left them, and leave them running",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with the layer whose directory it lies in, and sort them.

    The layers without libvirt come first, then the groups, then the rest.
    """
    for item in items:
        layer = layer_of(item.nodeid)  # not of its path: a checkout may lie in a directory "boot"
        item.add_marker(layer)
        if layer in TIMEOUTS and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUTS[layer]))
    items.sort(key=lambda item: (_needs_libvirt(item.nodeid), groups.place(item.nodeid)))


def _needs_libvirt(nodeid: str) -> bool:
    return layer_of(nodeid) not in ("unit", "expected")


def layer_of(nodeid: str) -> str:
    """Return a test's layer: the directory in which it lies."""
    return groups.file_of(nodeid).split("/", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the files of one golden in one process; see tests/groups.py."""
    return groups.Groups(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how long each layer took: what its tests took together, and from begin to end."""
    seconds: dict[str, float] = {}
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}
    count: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport):
                continue
            layer = layer_of(report.nodeid)
            seconds[layer] = seconds.get(layer, 0) + report.duration
            begun[layer] = min(begun.get(layer, report.start), report.start)
            ended[layer] = max(ended.get(layer, report.stop), report.stop)
            count[layer] = count.get(layer, 0) + (report.when == "call")
    for layer in (one for one in LAYERS if one in seconds):
        terminalreporter.write_line(
            f"layer {layer}: {count[layer]} tests, {seconds[layer]:.0f} s of tests "
            f"within {ended[layer] - begun[layer]:.0f} s"
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
