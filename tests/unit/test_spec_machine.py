"""A machine is checked when it is made."""

from __future__ import annotations

from typing import Any

import pytest

from armvm.base.errors import ConfigError
from armvm.settings.machine import MAX_CPUS, Machine
from armvm.settings.size import MAX_DISK
from armvm.settings.system import CODENAMES, FALLBACK_USER, OperatingSystem


@pytest.mark.parametrize(
    "values",
    [
        {"name": "../x"},
        {"name": "x" * 300},
        {"cpus": 0},
        {"cpus": -1},
        {"cpus": 9999},
        {"memory_mib": 3},
        {"memory_mib": 0},
        {"memory_mib": 1 << 40},
        {"disk": 0},
        {"disk": (1 << 30) - 1},
        {"disk": MAX_DISK + 1},
        {"user": "root"},
        {"user": "a b"},
        {"network": ""},
        {"network": "a/b"},
        {"cpu_model": ""},
        {"cpu_model": "a57,pauth=off"},
        {"cpu_model": "<x/>"},
        {"cpu_model": "\x1b"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine(**{"name": "m", **values})
    assert caught.value.message.isprintable()


def test_the_edges_are_allowed() -> None:
    machine = Machine(
        name="m", cpus=MAX_CPUS, memory_mib=256, disk=1 << 30, network="user", cpu_model="a64fx"
    )
    assert machine.cpus == MAX_CPUS
    assert Machine(name="m", disk=MAX_DISK).disk == MAX_DISK


def test_the_summary_holds_nothing_secret() -> None:
    machine = Machine(
        name="m", ssh_keys=("ssh-ed25519 KEY",), password_hash="$2b$HASH", user_data="#!SECRET"
    )
    text = str(machine.summary())
    for secret in ("KEY", "HASH", "SECRET"):
        assert secret not in text


def test_a_machine_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Machine(name="m").cpus = 0  # type: ignore[misc]


def test_operating_systems() -> None:
    noble = OperatingSystem(distro="ubuntu", version=CODENAMES["ubuntu"]["noble"])
    assert noble.libosinfo_id == "http://ubuntu.com/ubuntu/24.04"
    assert noble.default_user == "ubuntu"
    bookworm = OperatingSystem(distro="debian", version="12")
    assert bookworm.libosinfo_id == "http://debian.org/debian/12"
    assert str(bookworm) == "debian 12"
    assert OperatingSystem(distro="other", version="1").default_user == FALLBACK_USER
    for distro, version, osinfo in (
        ("fedora", "43", "http://fedoraproject.org/fedora/43"),
        ("alpine", "3.22", "http://alpinelinux.org/alpinelinux/3.22"),
        ("opensuse", "tumbleweed", "http://opensuse.org/opensuse/tumbleweed"),
    ):
        system = OperatingSystem(distro=distro, version=version)
        assert (system.libosinfo_id, system.default_user) == (osinfo, distro)
