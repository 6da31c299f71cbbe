"""A pool on the other host: filled over ssh, and taken from by the client and the host itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from armvm.base.poll import until
from armvm.host.memory import route as memory
from tests.altered_host import short_of_memory, upgraded_qemu
from tests.golden_files import exported
from tests.remote.host import OtherHost
from tests.support import Result

pytestmark = pytest.mark.slow

#: Seconds to fill a pool on a busy host.
FILL = 300


def state(lab: OtherHost) -> dict[str, Any]:
    """Return what `armvm pool list` says at the client."""
    (found,) = lab.armvm("pool", "list", "--json").ok().json
    return dict(found)


def log(lab: OtherHost, golden: str) -> str:
    """Return what the client's last refill in the background said."""
    file = Path(lab.env["XDG_STATE_HOME"]) / "armvm" / f"pool-{golden}.log"
    return file.read_text() if file.exists() else ""


def waiting(lab: OtherHost, golden: str) -> str:
    """Return the name of the ready machine, when there is one and none is made."""

    def settled() -> bool:
        now = state(lab)
        return (now["ready"], now["starting"]) == (1, 0)

    assert until(settled, timeout=FILL, interval=1), log(lab, golden)
    return str(state(lab)["machines"][0])


def run(lab: OtherHost, golden: str) -> Result:
    return lab.armvm("run", "--from", golden, "--", "hostname", timeout=FILL).ok()


@pytest.fixture(scope="module")
def ready(lab: OtherHost, golden: str) -> Iterator[str]:
    """The golden, with a pool of one that the client filled."""
    lab.armvm("pool", "set", golden, "--size", "1", timeout=FILL).ok()
    yield golden
    lab.armvm("pool", "set", golden, "--size", "0", timeout=FILL).ok()
    assert golden + "-" not in lab.host_runs("virsh", "list", "--all", "--name").stdout


def test_the_client_takes_one_and_another_one_is_made(lab: OtherHost, ready: str) -> None:
    before = waiting(lab, ready)
    done = run(lab, ready)
    assert done.out.strip() == before
    assert f"taken from the pool of golden {ready}" in done.err
    assert waiting(lab, ready) != before


def test_the_host_itself_takes_one_that_the_client_made(lab: OtherHost, ready: str) -> None:
    before = waiting(lab, ready)
    (seen,) = lab.armvm_there("pool", "list", "--json").ok().json
    assert seen["machines"] == [before]
    words = ("create", "--from", ready, "--json")
    made = lab.armvm_there(*words, timeout=FILL).ok()
    try:
        assert made.json["name"] == before
        assert lab.armvm_there("ssh", before, "--", "hostname").ok().out.strip() == before
    finally:
        lab.armvm_there("delete", "--yes", before).ok()
    waiting(lab, ready)


def test_a_host_short_of_memory_makes_no_more(lab: OtherHost, ready: str, tmp_path: Path) -> None:
    before = waiting(lab, ready)
    with short_of_memory(lab.pid, tmp_path):
        assert run(lab, ready).out.strip() == before
        assert until(lambda: "free memory" in log(lab, ready), timeout=FILL, interval=1)
        refused = lab.armvm("pool", "fill", ready).failed(6)
        assert "the host has 650 MiB of free memory" in refused.err
        assert (state(lab)["ready"], state(lab)["starting"]) == (0, 0)
    lab.armvm("pool", "fill", ready, timeout=FILL).ok()
    waiting(lab, ready)


def test_a_golden_whose_memory_is_shared_serves_only_the_host_itself(
    lab: OtherHost, blank_image: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.golden"
    name = exported(blank_image, file, memory.COW)
    lab.armvm_there("golden", "import", file).ok()
    try:
        refused = lab.armvm("pool", "set", name, "--size", "1").failed(5)
        assert f"golden {name} cannot be used: its memory cannot be shared" in refused.err
        assert name not in lab.armvm("pool", "list").ok().out, "the size was not recorded"
        lab.armvm("pool", "set", name, "--size", "0").ok()
        shown = lab.armvm("golden", "show", name, "--json").ok().json
        assert not shown["fits"]
        assert shown["why_not"].startswith("its memory cannot be shared")
        assert "its memory cannot be shared" in lab.armvm("golden", "verify", name).failed(5).err
        assert lab.armvm_there("golden", "show", name, "--json").ok().json["fits"]
    finally:
        lab.armvm("golden", "delete", name, "--yes").ok()


def test_an_upgrade_of_qemu(lab: OtherHost, ready: str, tmp_path: Path) -> None:
    """The client cannot read the host's QEMU: a new machine's own QEMU tells its version."""
    before = waiting(lab, ready)
    with upgraded_qemu(lab.pid, tmp_path, "/usr/bin/qemu-system-aarch64") as version:
        done = run(lab, ready)
        assert done.out.strip() == before, "its QEMU runs on"
        refused = lab.armvm("pool", "fill", ready, timeout=FILL).failed(10)
        assert f"golden {ready} cannot be used: QEMU" in refused.err
        assert version in refused.err
        (seen,) = lab.armvm_there("pool", "list", "--json").ok().json
        assert version in seen["why_not"]
    lab.armvm("pool", "fill", ready, timeout=FILL).ok()
    waiting(lab, ready)
