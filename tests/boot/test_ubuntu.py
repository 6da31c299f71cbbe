"""Reports of failed boots, on the Ubuntu path.

One boot for all of it: Microsoft's keys in the firmware, a time-out on the way, and a cloud-init
that ends in error. The guest that all tests share comes on the same path: tests.boot.conftest.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lxml import etree

from tests.boot.conftest import BOOT_TIMEOUT
from tests.image_server import ImageServer, ubuntu_tree
from tests.support import armvm

SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.mark.slow
def test_ubuntu_boots_from_a_server_with_its_layout(
    debian_image: Path, tmp_path: Path, name: str
) -> None:
    """The bytes are Debian's (Ubuntu's host is not always in reach); all else is the real way.

    Nobody but Ubuntu can sign for Ubuntu, so less is asked for, aloud.
    """
    root, user_data = tmp_path / "www", tmp_path / "user-data"
    user_data.write_text("#cloud-config\nruncmd:\n  - [sh, -c, 'echo no such thing; exit 3']\n")
    published = ubuntu_tree(root, debian_image, version="24.04", serial="20260911")
    with ImageServer(root) as server:
        env = {
            "ARMVM_MIRROR_UBUNTU": server.url,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "no_proxy": "127.0.0.1",
        }
        made = armvm(
            *("create", "--name", name, "--image", "ubuntu:24.04", "--headless"),
            *("--no-start", "--user-data", user_data, "--verify", "digest"),
            env=env,
            timeout=300,
        ).ok()
    assert made.err.count("the signature is not checked (verify = digest)") == 1
    shown = armvm("show", name, "--json", env=env).ok().json
    assert shown["image"] == {
        "reference": "ubuntu:24.04",
        "serial": "20260911",
        "digest": f"sha256:{published.digest}",
        "size": str(debian_image.stat().st_size),
        "system": "ubuntu 24.04",
        "verified": "catalog-digest",
    }
    assert "without a signature" in shown["provenance"]
    assert shown["user"] == "ubuntu"
    _enable_secure_boot(name, tmp_path)

    # Far too short for a boot: the machine stays, and the error says how far it got.
    late = armvm("start", "--wait", name, "--timeout", "25", env=env).failed(11)
    assert "last stage reached: " in late.err
    assert "the end of its serial log:" in late.err
    assert f"armvm wait {name}" in late.err

    waited = armvm(
        *("wait", name, "--timeout", str(BOOT_TIMEOUT)), env=env, timeout=BOOT_TIMEOUT + 60
    )
    error = waited.failed(12)
    assert "cloud-init failed" in error.err
    assert "runcmd" in error.err or "scripts" in error.err, "the lines say why"

    done = armvm("ssh", name, "--", f"uname -m; whoami; od -An -tu1 {SECURE_BOOT}", env=env)
    machine, user, *value = done.ok().out.split()
    assert (machine, user) == ("aarch64", "ubuntu")
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
