"""One other host for all of these tests, one golden baked there over ssh, and a clone of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.remote.host import OtherHost, other_host

#: Seconds for one boot: emulated, on a shared machine with two cores.
BOOT_TIMEOUT = 800


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine on the other host that can be logged in to, and what its creation printed."""

    name: str
    created: dict[str, Any]


@pytest.fixture(scope="session")
def lab() -> Iterator[OtherHost]:
    """The other host."""
    if os.geteuid() != 0:
        pytest.skip("only root can make another host")
    # Its path is short: a socket's may have 107 bytes.
    work = Path(tempfile.mkdtemp(prefix="armvm-lab-", dir="/var/tmp"))
    work.chmod(0o711)
    try:
        with other_host(work) as host:
            yield host
    finally:
        shutil.rmtree(work, ignore_errors=True)


@pytest.fixture(scope="session")
def golden(lab: OtherHost, debian_image: Path) -> str:
    """A golden on the other host, booted cold there, waited for and saved over ssh."""
    lab.armvm(
        *("golden", "create", "ci", "--preset", "minimal", "--mem", "768"),
        *("--image", debian_image, "--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 60,
    ).ok()
    return "ci"


@pytest.fixture(scope="session")
def box(lab: OtherHost, golden: str) -> Machine:
    """A clone behind the other host's NAT."""
    done = lab.armvm("create", "--name", "box", "--from", golden, "--json", timeout=300)
    return Machine(name="box", created=done.ok().json)


@pytest.fixture(scope="session")
def held(lab: OtherHost, blank_image: Path) -> str:
    """A machine that is off, and need not boot."""
    lab.armvm("create", "--name", "held", "--image", blank_image, "--no-start").ok()
    return "held"
