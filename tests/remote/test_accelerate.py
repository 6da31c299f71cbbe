"""A guest on the other host, whose compile steps run at the client."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.base.progress import Quiet
from armvm.provision.image import find
from armvm.provision.rootfs.install import installed
from tests.boot.test_accelerate import ONE_FILE
from tests.remote.conftest import BOOT_TIMEOUT
from tests.remote.host import OtherHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def compilers(lab: OtherHost, debian_image: Path) -> str:
    """A golden with a compiler, baked over ssh. The client has no network: its image is cached."""
    image = find.obtain(find.locate(str(debian_image), Quiet()), Quiet())
    installed(image, ("gcc",), Quiet())
    lab.armvm(
        *("golden", "create", "acc", "--preset", "minimal", "--mem", "768", "--install", "gcc"),
        *("--image", debian_image, "--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 300,
    ).ok()
    return "acc"


def test_the_client_compiles(lab: OtherHost, compilers: str) -> None:
    """ssh passes through the host: the port is the guest's own, and the service is the client's."""
    lab.armvm("create", "--name", "acc-01", "--from", compilers, timeout=300).ok()
    told = lab.armvm("accelerate", "acc-01", "--json", timeout=900).ok().json
    lab.armvm("ssh", "acc-01", "--", ONE_FILE, timeout=300).ok()
    assert "compiled in " in Path(told["log"]).read_text()
    assert ":36321 " not in lab.host_runs("ss", "-Hltn").stdout
    lab.armvm("accelerate", "acc-01", "--stop").ok()
    refused = lab.armvm("ssh", "acc-01", "--", ONE_FILE, timeout=300)
    assert refused.code != 0
    assert "armvm accelerate: " in refused.err
    assert lab.armvm("accelerate", "acc-01", "--stop").ok().out == ""
    lab.armvm("delete", "--yes", "acc-01").ok()
