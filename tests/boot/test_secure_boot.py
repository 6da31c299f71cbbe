"""The image that armvm builds boots under Secure Boot; and cloud-init's errors are told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lxml import etree

from tests.boot.conftest import BOOT_TIMEOUT
from tests.support import armvm


def test_secure_boot_and_a_failing_cloud_init(
    debian_image: Path, tmp_path: Path, name: str
) -> None:
    """One boot for both: Microsoft's keys in the firmware, and a runcmd that fails."""
    user_data = tmp_path / "user-data"
    user_data.write_text("#cloud-config\nruncmd:\n  - [sh, -c, 'echo no such thing; exit 3']\n")
    armvm(
        *("create", "--name", name, "--image", "local:debian-12", "--no-start"),
        *("--user-data", user_data),
    ).ok()
    _enable_secure_boot(name, tmp_path)

    started = armvm(
        "start", "--wait", name, "--timeout", str(BOOT_TIMEOUT), timeout=BOOT_TIMEOUT + 60
    )
    error = started.failed(12)
    assert "cloud-init ended in error" in error.err
    assert "runcmd" in error.err or "scripts" in error.err, "the lines say why"

    variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    value = armvm("ssh", name, "--", f"od -An -tu1 {variable}").ok().out.split()
    assert value[-1] == "1", "Secure Boot is on"


def _enable_secure_boot(name: str, tmp_path: Path) -> None:
    """Ask for the firmware with Microsoft's keys, as virt-install would."""
    dumped = subprocess.run(
        ["virsh", "dumpxml", "--inactive", "--security-info", name],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    document = etree.fromstring(dumped.stdout)
    element = document.find("os")
    assert element is not None
    for stale in [*element.findall("loader"), *element.findall("nvram")]:
        element.remove(stale)
    for feature in element.findall("firmware/feature"):
        if feature.get("name") == "enrolled-keys":
            feature.set("enabled", "yes")
        elif feature.get("name") == "secure-boot":
            # Debian 12 describes this firmware without the feature secure-boot; the keys decide.
            firmware = feature.getparent()
            assert firmware is not None
            firmware.remove(feature)
    file = tmp_path / "secure.xml"
    file.write_bytes(etree.tostring(document))
    done = subprocess.run(["virsh", "define", file], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(done.stderr)
