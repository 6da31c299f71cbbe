"""A golden of a tuned image. Tuning fetches package lists in the guest: minutes under emulation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.conftest import baked
from tests.boot.test_warm import CLONE_TIMEOUT
from tests.support import armvm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def tuned(debian_image: Path) -> Iterator[str]:
    with baked("armvm-tuned", debian_image, "--network", "user", "--tuned") as name:
        yield name


def test_a_tuned_image_has_nothing_left_of_who_tuned_it(tuned: str, name: str) -> None:
    assert armvm("golden", "show", tuned, "--json").ok().json["provenance"].endswith("tuned here")
    armvm("create", "--from", tuned, "--name", name, timeout=CLONE_TIMEOUT).ok()

    def told(command: str) -> str:
        return armvm("ssh", name, "--", command).ok().out

    assert told("ls /home; grep -c armvm-tune /etc/passwd || true").split() == ["debian", "0"]
    assert told("sudo grep -rl armvm-tune /etc /var/lib /root /var/mail || true") == ""
    assert told("systemctl is-enabled apt-daily-upgrade.timer || true").strip() == "disabled"
    assert int(told("ls /var/lib/apt/lists/*Packages* | wc -l")) > 0, "they are fetched already"
    assert "ed25519" in told("cat /etc/cloud/cloud.cfg.d/95-armvm-tuned.cfg")
