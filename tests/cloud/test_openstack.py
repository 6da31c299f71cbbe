"""The commands on real keystone, glance, placement and nova; Neutron is a stand-in."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from armvm.base.poll import until as polled
from tests.support import ARMVM, ROOT, Result, armvm

ZED = ROOT / "tests/cloud/zed"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is missing"),
    pytest.mark.skipif(
        importlib.util.find_spec("openstack") is None, reason="pip install openstacksdk"
    ),
]
#: Makes the flavors; Nova lets only administrators do that.
FLAVORS = """
import openstack
compute = openstack.connect(cloud="admin").compute
there = {one.name for one in compute.flavors()}
for name, cpus, ram in (("arm.small", 2, 1024), ("arm.wide", 99, 1024), ("arm.large", 2, 50000)):
    if name not in there:
        compute.create_flavor(name=name, vcpus=cpus, ram=ram, disk=5)
"""

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs armvm in the network of the services; its cloud has three names, for three flavors."""
    home = tmp_path_factory.mktemp("zed")
    (home / "armvm").mkdir()
    (home / "openstack").mkdir()
    (home / "armvm/config.toml").write_text(
        '[clouds]\nfarm = { openstack = "tests", network = "net", flavor = "arm.small" }\n'
        'wide = { openstack = "tests", network = "net", flavor = "arm.wide" }\n'
        'large = { openstack = "tests", network = "net", flavor = "arm.large" }\n'
    )
    clouds = {
        name: {
            "region_name": "one",
            "auth": {
                "auth_url": "http://127.0.0.1:5000/v3", "username": user, "password": user,
                "project_name": name, "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
        }
        for name, user in (("tests", "tester"), ("admin", "admin"))
    }  # fmt: skip
    (home / "openstack/clouds.yaml").write_text(yaml.safe_dump({"clouds": clouds}))
    subprocess.run([ZED, "make"], check=True)
    subprocess.run([ZED, "start"], check=True)
    env = {"XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home / "data")}

    def run(*args: str | Path) -> Result:
        return armvm(*args, prefix=[str(ZED), "run", *ARMVM], env=env, timeout=3000)

    try:
        words = [str(ZED), "run", ARMVM[0], "-c", FLAVORS]
        subprocess.run(words, check=True, env={**os.environ, **env})
        yield run
    finally:
        subprocess.run([ZED, "stop"], check=True)


def until(check: Callable[[], bool]) -> None:
    assert polled(check, timeout=120, interval=2)


def test_a_server_that_nova_refuses_or_cannot_place(run: Run, blank_image: Path) -> None:
    words = ("--image", blank_image, "--user", "alice")
    refused = run("create", "--on", "wide", *words).failed(6).err
    assert "the quota is exceeded" in refused
    assert "uploading" not in run("create", "--on", "wide", *words).failed(6).err, "only once"
    assert "No valid host was found" in run("create", "--on", "large", *words).failed(10).err
    assert run("list", "--on", "large", "--json").ok().json == []


def test_the_commands_on_a_server_that_runs(run: Run, blank_image: Path) -> None:
    """Without a guest system: its firmware runs, and writes to the serial console."""
    words = ("--image", blank_image, "--user", "alice", "--name", "dev", "--no-wait")
    made = run("create", "--on", "farm", *words, "--json").ok().json
    try:
        assert (made["state"], made["cpus"], made["memory_mib"]) == ("running", 2, 1024)
        assert run("ip", "--on", "farm").ok().out.startswith("192.168.77.")
        assert "already exists" in run("create", "--on", "farm", *words).failed(5).err
        (listed,) = run("list", "--on", "farm", "--json").ok().json
        assert listed["name"] == "dev"
        until(lambda: "UEFI firmware" in run("logs", "dev", "--on", "farm").out)
        run("snapshot", "create", "dev", "first", "--on", "farm").ok()
        assert "dev is off" in run("stop", "dev", "--on", "farm").ok().out
        run("snapshot", "revert", "dev", "first", "--on", "farm", "--yes").ok()
        shown = run("show", "dev", "--on", "farm", "--json").ok().json
        assert (shown["state"], shown["host_key"]) == ("shut off", made["host_key"])
        run("start", "dev", "--on", "farm", "--no-wait").ok()
        run("restart", "dev", "--on", "farm", "--force", "--no-wait").ok()
        run("snapshot", "delete", "dev", "first", "--on", "farm", "--yes").ok()
    finally:
        run("delete", "dev", "--on", "farm", "--yes").ok()
    assert run("list", "--on", "farm", "--json").ok().json == []


def test_a_guest_boots_and_is_logged_in_to(run: Run, debian_image: Path, tmp_path: Path) -> None:
    """A whole boot by nova: cloud-init reads the config drive, and armvm checks the host key."""
    words = ("--image", debian_image, "--user", "alice", "--name", "guest", "--timeout", "2700")
    note = tmp_path / "note"
    note.write_text("carried\n")
    try:
        made = run("create", "--on", "farm", *words, "--json").ok().json
        assert made["ready_seconds"] > 0
        line = "id -un; hostname; uname -m; grep -o ConfigDrive /run/cloud-init/result.json"
        told = run("ssh", "guest", "--on", "farm", "--", line).ok().out.split()
        assert told == ["alice", "guest", "aarch64", "ConfigDrive"]
        run("cp", note, "guest:", "--on", "farm").ok()
        assert run("ssh", "guest", "--on", "farm", "--", "cat note").ok().out == "carried\n"
        run("wait", "guest", "--on", "farm").ok()
        line = "sudo ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
        printed = run("ssh", "guest", "--on", "farm", "--", line).ok().out.split()
        assert printed[1] == made["host_key"]
    finally:
        run("delete", "guest", "--on", "farm", "--yes")
    assert run("list", "--on", "farm", "--json").ok().json == []
