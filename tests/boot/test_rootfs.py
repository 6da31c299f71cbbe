"""From user mode to the full system: a root file system is entered, and then booted.

docker is installed in user mode, which takes less of a test's time than in the machine; that
it works there is the machine's to show.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests import schemas
from tests.boot.conftest import BOOT_TIMEOUT, data_home
from tests.build_tools import can_build
from tests.foreign_programs import busybox, docker
from tests.support import armvm, environment, fresh_name

pytestmark = [can_build, pytest.mark.timeout(3600)]


def containers_run(name: str, home: Path) -> str:
    """Return what a container prints that the host's docker client runs in a machine.

    The client's context is made and removed by armvm. ssh reads the account's own configuration,
    whatever HOME is: the one before it on the PATH is told of ours.
    """
    (home / "bin").mkdir(parents=True)
    (home / "bin/ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {home}/.ssh/config "$@"\n')
    (home / "bin/ssh").chmod(0o755)
    (home / "bin/docker").symlink_to(docker())
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    env = environment(HOME=str(home), PATH=path, **data_home())

    def client(*words: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            ["docker", "--context", name, *words], input=stdin, capture_output=True, env=env,
            timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(busybox("arm64"), "bin/busybox")
    armvm("docker-context", name, "--json", env=env).ok()
    try:
        client("import", "-", "tiny:1", stdin=archive.getvalue())
        return client("run", "--rm", "--network", "none", "tiny:1", "/bin/busybox", "uname", "-m")
    finally:
        armvm("docker-context", name, "--remove", "--json", env=env).ok()
        armvm("ssh-config", "--remove", name, env=env).ok()


@pytest.mark.slow
def test_a_root_file_system_is_entered_and_booted(tmp_path: Path, name: str) -> None:
    """What was done to the files in user mode is there in the machine."""
    root, image = tmp_path / "disk", fresh_name("armvm-rootfs")
    words = ("rootfs", "create", root, "--image", "debian:12", "--bootable", "--json")
    made = armvm(*words, timeout=1200).ok()
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
            *("create", "--name", name, "--image", f"local:{image}", "--preset", "minimal"),
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


@pytest.mark.slow
def test_containers_run_in_a_machine_of_the_preset(
    debian_image: Path, tmp_path: Path, name: str
) -> None:
    """The packages are installed in the guest, which takes minutes under emulation."""
    armvm(
        *("create", "--name", name, "--image", debian_image, "--preset", "docker"),
        *("--connect", "qemu:///system", "--timeout", "3000"),
        timeout=3060,
    ).ok()
    try:
        assert containers_run(name, tmp_path / "home") == "aarch64\n"
    finally:
        armvm("delete", "--yes", name, "--connect", "qemu:///system")
