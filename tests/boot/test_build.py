"""An ordinary user builds in a user namespace, from Debian's own archive: what is left, and said.

A whole build takes longer than a test may; the image that the other tests boot is built so by
root. Here the builds end while packages are fetched.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armvm.provision.image.workspace import PREFIX, SHARED
from tests.boot.conftest import OrdinaryUser


def left(user: OrdinaryUser) -> list[Path]:
    """Return the directories of this user's builds."""
    return [path for path in SHARED.glob(f"{PREFIX}*") if path.owner() == user.name]


def processes(user: OrdinaryUser) -> str:
    """Return the command lines of the mmdebstraps that are this user's."""
    words = ["pgrep", "-u", user.name, "-a", "-f", "mmdebstrap"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def wait_until(true: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until a function says yes."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.3)


@pytest.mark.timeout(600)
def test_a_killed_build_is_cleaned_up_by_the_next(ordinary_user: OrdinaryUser) -> None:
    user = ordinary_user
    log = user.home / "build.log"
    # Not runuser, which would be what is killed.
    as_user = ("setpriv", f"--reuid={user.name}", f"--regid={user.name}", "--init-groups")
    python = sys._base_executable  # type: ignore[attr-defined]
    with log.open("w") as file:
        build = subprocess.Popen(
            [
                *(*as_user, "env", "-i", *user.environment),
                *(python, "-m", "armvm", "image", "build", "debian:13"),
            ],
            stdout=file,
            stderr=file,
            cwd=user.home,
        )
    try:
        wait_until(lambda: "fetching packages" in log.read_text() or build.poll() is not None)
        assert build.poll() is None, log.read_text()
    finally:
        build.kill()
        build.wait()
    assert left(user)
    wait_until(lambda: not processes(user))

    refused = user.armvm("image", "build", "debian:13", "-p", "no-such-thing-here", timeout=300)
    assert "package 'no-such-thing-here' not found" in refused.failed(4).err
    assert left(user) == []
    kept = user.armvm("image", "list", "--json", "--connect", "test:///default").ok().json
    assert [one for one in kept if one["reference"].startswith("local:debian-13")] == []


def test_what_an_ordinary_user_may_not_write(ordinary_user: OrdinaryUser) -> None:
    refused = ordinary_user.armvm("image", "build", "debian:13", "--output", "/etc/x.qcow2")
    assert "/etc" in refused.failed(7).err
