"""The seed's documents of several machines, each with the same identity."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from armvm.guest.cloudinit.documents import compose
from armvm.settings.machine import Machine
from armvm.settings.system import FAMILIES, OperatingSystem
from tests.expected.conftest import Expected
from tests.unit.host_tools import IDENTITY, PUBLIC_KEY

SAMPLE = """\
#cloud-config
# What a user of ours might write.
hostname: build-01
locale: de_DE.UTF-8
packages: [git, build-essential]
users:
  - name: eve
    groups: [docker]
write_files:
  - path: /etc/motd
    content: |
      Grüße
        indented: "quoted"
runcmd:
  - [touch, /var/tmp/done]
  - 'echo "a: b" > /var/tmp/odd'
ssh_keys:
  ecdsa_public: ecdsa-sha2-nistp256 AAAA x
power_state: {mode: reboot, condition: false}
"""

TEMPLATE = """\
## template: jinja
#cloud-config
users: [{name: bob}]
runcmd:
  - echo {{ v1.local_hostname }} > /var/tmp/name
"""

MACHINES: dict[str, dict[str, Any]] = {
    "default": {},
    "no-autologin": {"autologin": False},
    "password": {"password_hash": "$2b$10$abcdefghijklmnopqrstuv", "ssh_keys": ()},
    "two-keys": {"ssh_keys": (PUBLIC_KEY, "ssh-rsa AAAAB3 second")},
    "cloud-config": {"user_data": SAMPLE},
    "preset-docker": {"preset": "docker"},
    "preset-builder-tuned": {"preset": "builder", "tuned": True},
    "fedora": {},
    "alpine": {},
    "script": {"user_data": "#!/bin/sh\necho hello\n"},
    "template": {"user_data": TEMPLATE},
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_documents_are_as_recorded(name: str, expected: Expected) -> None:
    machine = Machine(**{"name": "arm64-01", "ssh_keys": (PUBLIC_KEY,), **MACHINES[name]})
    system = OperatingSystem(distro=name, version="1") if name in FAMILIES else None
    files = compose(machine, IDENTITY, "alice", system=system).files()
    for file, data in files.items():
        assert file == "user-data" or yaml.safe_load(data) is not None
    text = "".join(f"=== {file}\n{data.decode()}" for file, data in sorted(files.items()))
    expected(f"seed/{name}.txt", text)
