"""A wait that times out reports the problem in the guest and a fix."""

from __future__ import annotations

import time
from pathlib import Path

from tests.libvirt.world import virsh
from tests.support import armvm


def test_a_suspended_guest_is_said_to_be_one(golden: str, name: str) -> None:
    armvm("create", "--from", golden, "--name", name).ok()
    virsh("suspend", name)
    told = armvm("wait", name, "--timeout", "8").failed(11).err
    assert "the machine is suspended" in told
    assert f"armvm resume {name}" in told
    refused = armvm("ssh", name, "--", "true", timeout=30).failed(10).err
    assert f"armvm resume {name}" in refused, "at once, instead of waiting with it"
    virsh("resume", name)
    armvm("wait", name, "--timeout", "120").ok()


def test_a_kernel_that_panics_is_not_waited_for(golden: str, name: str) -> None:
    armvm("create", "--from", golden, "--name", name).ok()
    # Later, so that the connection has ended before the kernel does.
    crash = "echo 0 > /proc/sys/kernel/panic; (sleep 2; echo c > /proc/sysrq-trigger) >&- 2>&- &"
    armvm("ssh", name, "--", f"sudo sh -c '{crash}'", timeout=60).ok()
    time.sleep(3)
    begun = time.monotonic()
    told = armvm("wait", name, "--timeout", "600", timeout=660).failed(11).err
    assert time.monotonic() - begun < 300
    assert told.count("warning: ") == 1, "once, and at once"
    assert "kernel panic: sysrq triggered crash" in told
    assert f"{name} stopped booting" in told
    assert f"armvm logs {name}" in told


def test_an_image_without_a_boot_loader(blank_image: Path, name: str) -> None:
    command = ("create", "--name", name, "--image", blank_image, "--preset", "minimal")
    told = armvm(*command, "--network", "user", "--timeout", "600", timeout=660).failed(11).err
    assert "the firmware found nothing to boot" in told
    assert "BOOTAA64.EFI" in told
    assert "stopped booting" in told
