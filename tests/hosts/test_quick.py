"""Debian sid as the host, in every `make test`: all that needs no guest that boots."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from armvm.host.capacity import measure
from armvm.host.connection import connect
from armvm.host.memory import route as memory
from tests.golden_files import exported
from tests.hosts.conftest import cases
from tests.hosts.other import IMAGES, Place
from tests.support import fresh_name

pytestmark = cases(("sid", "root"))
BLANK = f"{IMAGES}/blank.qcow2"
SMALL = ("--image", BLANK, "--preset", "minimal", "--mem", "256", "--disk", "1G")


@pytest.mark.feature("`scripts/setup`; run again, it changes nothing")
def test_setup_changes_nothing_the_second_time(place: Place) -> None:
    again = place.setup().ok()
    assert again.out + again.err == ""


@pytest.mark.feature("`doctor`")
def test_doctor_finds_nothing_that_lacks(place: Place) -> None:
    told = place.armvm("doctor", "--json").ok().json
    # The handler for ARM64 programs is the kernel's, which is not that host's own.
    lacks = [one for one in told if not one["ok"] and one["name"] != "binfmt handler"]
    assert lacks == []
    assert {"libvirt", "emulator", "firmware", "network"} <= {one["name"] for one in told}


@pytest.mark.feature("libvirt restarts while a machine runs")
def test_a_machine_is_defined_started_and_outlives_its_daemon(place: Place) -> None:
    name = fresh_name()
    place.armvm("create", "--name", name, *SMALL, "--no-start").ok()
    try:
        place.virsh("net-destroy", "armvm")  # it is started with the machine
        place.armvm("start", name, "--no-wait").ok()
        place.host.run("systemctl", "restart", "libvirtd").ok()
        [seen] = [one for one in place.armvm("list", "--json").ok().json if one["name"] == name]
        assert seen["state"] == "running"
        assert place.virsh("net-info", "armvm").split("Active:")[1].split()[0] == "yes"
    finally:
        place.armvm("delete", "--yes", name).ok()
    assert name not in place.virsh("list", "--all", "--name")
    assert place.host.shell(f"ls /var/lib/libvirt/images/armvm | grep -c {name}").out == "0\n"


def test_a_machine_with_autostart_runs_again_after_a_power_cut(place: Place) -> None:
    name, other = fresh_name(), fresh_name()
    try:
        for one in (name, other):
            place.armvm("create", "--name", one, *SMALL, "--no-start").ok()
            place.armvm("start", one, "--no-wait").ok()
        place.armvm("autostart", name).ok()
        place.host.do("stop").ok()
        place.host.do("boot").ok()
        told = {one["name"]: one["state"] for one in place.armvm("list", "--json").ok().json}
        assert (told[name], told[other]) == ("running", "shut off")
        assert place.virsh("net-info", "armvm").split("Active:")[1].split()[0] == "yes"
        place.armvm("start", other, "--no-wait").ok()
    finally:
        place.armvm("delete", "--yes", name, other)


@pytest.fixture(scope="module")
def told(place: Place) -> Any:
    """What became of goldens of a blank disk."""
    return json.loads(place.python("tests.hosts.blank_golden", place.user.uri, BLANK).ok().out)


def test_memory_is_shared_where_it_can_be(told: Any) -> None:
    assert told["best"] == "cow"


@pytest.mark.parametrize("route", ["cow", "save-image"])
def test_a_golden_is_saved_and_loaded(told: Any, route: str) -> None:
    assert told[route] == {"verified": True, "clone": "goes on", "throwaway": "goes on"}


def test_a_golden_of_another_qemu_is_refused(
    place: Place, blank_image: Path, tmp_path: Path
) -> None:
    """Exported by this machine's libvirt; the other host has another QEMU and another firmware."""
    with contextlib.closing(connect("qemu:///system")) as connection:
        if measure(connection).qemu == place.host.versions()["qemu"]:
            pytest.skip("both hosts have the same QEMU")
    file = tmp_path / "a.golden"
    name = exported(blank_image, file, memory.SAVE_IMAGE)
    there = f"/var/tmp/{name}.golden"
    place.host.send(file, there)
    try:
        told = place.armvm("golden", "import", there).failed(5).err
    finally:
        place.host.run("rm", there)
    assert f"golden {name} cannot be used here: " in told
    assert "QEMU " in told
    assert "where it was made" in told
    assert "armvm golden create" in told
    assert place.armvm("golden", "list", "--json").ok().json == []
    assert name not in place.virsh("list", "--all", "--name")
    assert place.host.shell(f"ls /var/lib/libvirt/images/armvm | grep -c {name}").out == "0\n"
