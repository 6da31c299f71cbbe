"""A fast machine in system mode, in detail; tests.boot.test_session boots one for every change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.conftest import BOOT_TIMEOUT, Guest
from tests.support import armvm, fresh_name

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fast(debian_image: Path) -> Iterator[Guest]:
    """A fast, headless machine with user networking."""
    name = fresh_name("armvm-fast")
    created = armvm(
        *("create", "--name", name, "--fast", "--preset", "minimal", "--network", "user"),
        *("--image", "local:debian-12", "--connect", "qemu:///system", "--json"),
        timeout=BOOT_TIMEOUT,
    )
    try:
        yield Guest(name=name, user="debian", created=created.ok().json, said=created.err, env={})
    finally:
        armvm("delete", "--yes", name, "--connect", "qemu:///system")


def test_it_says_what_it_trades(fast: Guest) -> None:
    shown = armvm("show", fast.name).ok().out
    assert "cache=unsafe" in shown
    assert "installs later is not booted" in shown


def test_the_network_and_what_is_mounted_are_as_it_says(fast: Guest) -> None:
    shown = armvm("show", fast.name).ok().out
    assert "netplan is not configured" in shown
    assert "debugfs" in shown
    words = fast.ssh("cat /proc/cmdline").ok().out.split()
    assert {"ip=dhcp", "network-config=disabled", "ds=nocloud"} <= set(words)
    assert not fast.ssh("ls /etc/netplan").out.strip()
    assert "routable" in fast.ssh("networkctl list --no-legend 'e*'").ok().out
    assert "debugfs" not in fast.ssh("mount").ok().out
    fast.ssh("sudo mount -t debugfs none /mnt && sudo umount /mnt").ok()


def test_the_page_tables_of_an_emulated_kernel_are_not_isolated(fast: Guest) -> None:
    if armvm("show", fast.name, "--json").ok().json["accelerator"] != "tcg":
        pytest.skip("only for emulated machines")
    assert "kpti=0" in armvm("show", fast.name).ok().out
    log = fast.ssh("sudo dmesg").ok().out
    assert "page table isolation forced OFF" in log
    assert "detected: Kernel page table isolation" not in log
    known = fast.ssh("cat /sys/devices/system/cpu/vulnerabilities/meltdown").ok().out
    assert known.strip() == "Not affected"


def test_the_kernel_is_the_images_and_no_firmware_ran(fast: Guest) -> None:
    release, *rest = fast.ssh("uname -r; ls -d /sys/firmware/*; cloud-init status").ok().out.split()
    assert f"vmlinuz-{release} " in fast.created["fast"]["kernel"]
    assert "/sys/firmware/efi" not in rest
    assert rest[-1] == "done"
    assert int(fast.ssh("df --output=size -BG / | tail -1").ok().out.strip(" G\n")) > 7


def test_it_reboots_by_itself(fast: Guest) -> None:
    """QEMU loads the kernel again; that boot need not be waited for."""
    begun = armvm("logs", fast.name).ok().out.count("Linux version ")
    assert begun > 0
    fast.ssh("sudo systemctl reboot")  # its connection ends with the boot
    end = time.monotonic() + BOOT_TIMEOUT
    while armvm("logs", fast.name).ok().out.count("Linux version ") == begun:
        assert time.monotonic() < end, "it did not come back"
        time.sleep(2)
    assert armvm("show", fast.name, "--json").ok().json["state"] == "running"
    armvm("stop", "--force", fast.name).ok()
    assert armvm("show", fast.name, "--json").ok().json["state"] == "shut off"


def test_it_shuts_down_when_asked(fast: Guest) -> None:
    armvm("start", "--wait", fast.name, timeout=BOOT_TIMEOUT).ok()
    armvm("stop", fast.name, timeout=700).ok()
    assert armvm("show", fast.name, "--json").ok().json["state"] == "shut off"
    assert "reboot: Power down" in armvm("logs", fast.name).ok().out
