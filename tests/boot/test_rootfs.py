"""From user mode to the full system: a root file system is entered, and then booted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import schemas
from tests.boot.conftest import BOOT_TIMEOUT
from tests.build_tools import can_build
from tests.support import armvm, fresh_name

pytestmark = [can_build, pytest.mark.timeout(3600)]


def test_a_root_file_system_is_entered_and_booted(tmp_path: Path, name: str) -> None:
    """What was done to the files in user mode is there in the machine."""
    root, image = tmp_path / "disk", fresh_name("armvm-rootfs")
    made = armvm(
        *("rootfs", "create", root, "--image", "debian:12", "--bootable", "--json"), timeout=1200
    ).ok()
    assert schemas.check("rootfs create", json.loads(made.out))["bootable"] is True
    assert armvm("rootfs", "enter", root, "--", "uname", "-m").ok().out == "aarch64\n"
    script = "echo from user mode > /etc/armvm-marker; echo key > /etc/ssh/ssh_host_rsa_key"
    armvm("rootfs", "enter", root, "--", "sh", "-c", script).ok()
    assert os.path.lexists(root / "etc/resolv.conf")

    # A machine-id would be every machine's.
    armvm("rootfs", "enter", root, "--", "systemd-machine-id-setup").ok()
    refused = armvm("rootfs", "to-image", root, "--as", image).failed(3)
    assert "/etc/machine-id is set" in refused.err
    armvm("rootfs", "enter", root, "--", "truncate", "-s", "0", "/etc/machine-id").ok()

    done = armvm("rootfs", "to-image", root, "--as", image, "--json", timeout=600).ok()
    told = schemas.check("rootfs to-image", json.loads(done.out))
    assert told["reference"] == f"local:{image}"
    try:
        armvm("rootfs", "to-image", root, "--as", image).failed(5)
        listed = armvm("image", "list", "--json", "--connect", "qemu:///system").ok().json
        (entry,) = [one for one in listed if one["reference"] == f"local:{image}"]
        assert Path(entry["path"]) == Path(told["path"])
        armvm(
            *("create", "--name", name, "--image", f"local:{image}", "--headless"),
            *("--connect", "qemu:///system", "--timeout", str(BOOT_TIMEOUT)),
            timeout=BOOT_TIMEOUT + 60,
        ).ok()
        asked = (
            "uname -m; cat /etc/armvm-marker; id -un; sudo cat /etc/ssh/ssh_host_rsa_key || true"
        )
        seen = armvm("ssh", name, "--connect", "qemu:///system", "--", asked).ok().out
        assert seen.splitlines()[:3] == ["aarch64", "from user mode", "debian"]
        assert "key" not in seen.splitlines()[3:], "cloud-init makes host keys anew"
    finally:
        armvm("delete", "--yes", name, "--connect", "qemu:///system")
        armvm("image", "rm", f"local:{image}", "--connect", "qemu:///system").ok()
