"""A pool of an ordinary user's golden, in session mode; what changes is the host as he sees it.

The golden is the system's, exported and imported.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.base.poll import until
from tests.altered_host import short_of_memory, upgraded_qemu
from tests.boot.conftest import OrdinaryUser
from tests.boot.test_pool import FILL
from tests.remote.host import namespaces
from tests.support import Result, armvm

pytestmark = pytest.mark.slow

NAME = "gold"


class Owner:
    """An ordinary user with a golden, and a mount namespace of his own, of process *pid*."""

    def __init__(self, user: OrdinaryUser, pid: int) -> None:
        self.user, self.pid = user, pid

    def armvm(self, *words: str | Path) -> Result:
        return self.user.armvm(*words, timeout=FILL)

    def state(self) -> dict[str, Any]:
        """Return what `armvm pool list` says of the golden's pool."""
        (found,) = self.armvm("pool", "list", "--json").ok().json
        return dict(found)

    def waiting(self) -> str:
        """Return the name of the ready machine, when there is one and none is made."""
        assert until(lambda: self._counts() == (1, 0), timeout=FILL, interval=1), self.log()
        return str(self.state()["machines"][0])

    def _counts(self) -> tuple[int, int]:
        now = self.state()
        return now["ready"], now["starting"]

    def log(self) -> str:
        """Return what the last refill in the background said."""
        file = self.user.home / f".local/state/armvm/pool-{NAME}.log"
        return file.read_text() if file.exists() else ""

    def run(self) -> Result:
        return self.armvm("run", "--from", NAME, "--", "hostname").ok()


@pytest.fixture(scope="module")
def owner(ordinary_user: OrdinaryUser, golden: str) -> Iterator[Owner]:
    with ExitStack() as stack:
        pid = stack.enter_context(namespaces("-m", words=["sleep", "infinity"]))
        user = replace(ordinary_user, inside=("nsenter", "-t", str(pid), "-m", "--"))
        file = user.home / "ci.golden"
        armvm("golden", "export", golden, file, timeout=FILL).ok()
        file.chmod(0o644)
        one = Owner(user, pid)
        one.armvm("golden", "import", file, "--as", NAME).ok()
        file.unlink()
        yield one
        one.armvm("pool", "set", NAME, "--size", "0").ok()
        one.armvm("golden", "delete", "--yes", NAME).ok()
        left = [path.name for path in (user.home / ".local/share/armvm/pool").iterdir()]
        assert [name for name in left if not name.startswith("base-")] == []


def test_a_command_takes_one_and_another_one_is_made(owner: Owner) -> None:
    said = owner.armvm("pool", "set", NAME, "--size", "1").ok().out
    assert said == f"golden {NAME} has a pool of 1: armvm run --from {NAME}\n"
    before = owner.waiting()
    done = owner.run()
    assert done.out.strip() == before
    assert f"taken from the pool of golden {NAME}" in done.err
    assert owner.waiting() != before


def test_his_daemon_may_end_meanwhile(owner: Owner) -> None:
    """It ends by itself when nobody is connected."""
    before = owner.waiting()
    subprocess.run(["pkill", "-TERM", "-u", owner.user.name, "-x", "libvirtd"], check=True)
    assert owner.run().out.strip() == before
    owner.waiting()


def test_a_host_short_of_memory_makes_no_more(owner: Owner, tmp_path: Path) -> None:
    before = owner.waiting()
    with short_of_memory(owner.pid, tmp_path, shared_mib=8192):
        assert owner.run().out.strip() == before
        assert until(lambda: "free memory" in owner.log(), timeout=FILL, interval=1)
        refused = owner.armvm("pool", "fill", NAME).failed(6)
        assert f"the host has 650 MiB of free memory; another machine of golden {NAME}" in (
            refused.err
        )
        assert f"armvm pool set {NAME} --size N" in refused.err
        now = owner.state()
        assert (now["size"], now["ready"], now["starting"]) == (1, 0, 0)
        assert f"created from golden {NAME}" in owner.run().err
    owner.armvm("pool", "fill", NAME).ok()
    owner.waiting()


def test_after_an_upgrade_of_qemu_it_is_emptied(owner: Owner, tmp_path: Path) -> None:
    owner.waiting()
    emulator = "/usr/bin/qemu-system-aarch64"
    with upgraded_qemu(owner.pid, tmp_path, emulator) as version:
        assert version in owner.state()["why_not"]
        refused = owner.armvm("pool", "fill", NAME).failed(5)
        assert f"golden {NAME} cannot be used: QEMU" in refused.err
        assert "its pool was emptied" in refused.err
        assert (owner.state()["size"], owner.state()["machines"]) == (1, [])
    owner.armvm("pool", "fill", NAME).ok()
    owner.waiting()
