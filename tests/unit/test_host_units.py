"""Which of libvirt's systemd units are in use on a host, from directories as systemd has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.host.systemd_units import sockets, start_command

MODULAR = ("virtqemud.socket", "virtnetworkd.socket", "virtstoraged.socket")
ONE = ("libvirtd.socket",)


class Host:
    """The directories of a host's own units, and of its packages'."""

    def __init__(self, parent: Path) -> None:
        self.own, self.packages = parent / "etc", parent / "lib"
        self.places = (self.own, self.packages)
        for place in self.places:
            place.mkdir()

    def install(self, *units: str) -> None:
        for unit in units:
            (self.packages / unit).write_text("[Socket]\n")

    def enable(self, unit: str) -> None:
        wants = self.own / "sockets.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / unit).symlink_to(self.packages / unit)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("units", [ONE, MODULAR, MODULAR[:2], ()])
def test_what_is_installed_is_what_is_started(host: Host, units: tuple[str, ...]) -> None:
    host.install(*units, "virtlogd.socket")
    assert sockets(host.places) == units


@pytest.mark.parametrize("units", [ONE, MODULAR])
def test_of_both_kinds_the_enabled_one_is_in_use(host: Host, units: tuple[str, ...]) -> None:
    host.install(*ONE, *MODULAR)
    assert sockets(host.places) == MODULAR, "libvirt's own default"
    host.enable(units[0])
    assert sockets(host.places) == units


def test_a_masked_unit_is_not_there(host: Host) -> None:
    host.install(*ONE, *MODULAR)
    (host.own / MODULAR[0]).symlink_to("/dev/null")
    assert sockets(host.places) == ONE
    (host.own / ONE[0]).touch()
    assert sockets(host.places) == ()


def test_the_command_names_units_of_this_host(host: Host, tmp_path: Path) -> None:
    assert "install libvirt-daemon-system" in start_command(host.places, tmp_path)
    assert start_command(host.places, tmp_path / "none") == "libvirtd -d && virtlogd -d"
    host.install(*MODULAR)
    assert start_command(host.places, tmp_path) == (
        "systemctl start virtqemud.socket virtnetworkd.socket virtstoraged.socket"
    )
