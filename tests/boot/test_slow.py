"""A wait that gets nowhere says what is wrong with the guest, and what to do."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from tests.libvirt.world import virsh
from tests.support import armvm


def test_a_suspended_guest_is_said_to_be_one(golden: str, name: str) -> None:
    armvm("create", "--from", golden, "--name", name).ok()
    virsh("suspend", name)
    told = armvm("wait", name, "--timeout", "8").failed(11).err
    assert "it is suspended: its CPUs stand still" in told
    assert f"armvm resume {name}" in told
    virsh("resume", name)
    armvm("wait", name, "--timeout", "120").ok()


def prepared(golden: str, name: str, change: str) -> None:
    """Make a machine from a golden, change it as root, and turn it off: its next boot is cold."""
    armvm("create", "--from", golden, "--name", name).ok()
    armvm("ssh", name, "--", f"sudo sh -ec {shlex.quote(change)} && sync").ok()
    armvm("stop", "--force", name).ok()


def test_a_kernel_that_panics_is_not_waited_for(golden: str, name: str) -> None:
    prepared(golden, name, r"sed -i 's#^\s*linux\s.*#& init=/bin/false#' /boot/grub/grub.cfg")
    begun = time.monotonic()
    told = armvm("start", "--wait", name, "--timeout", "900", timeout=960).failed(11).err
    assert time.monotonic() - begun < 600
    assert told.count("warning: ") == 1, "once, and at once"
    assert "its kernel has panicked: Attempted to kill init!" in told
    assert f"{name} gets no further; it got as far as: kernel" in told
    assert f"armvm logs {name}" in told


def test_a_boot_that_waits_for_something_is_said_to_wait(golden: str, name: str) -> None:
    """cloud-init's bootcmd is run at each boot, early: here it sleeps."""
    config = "/etc/cloud/cloud.cfg.d/99-stuck.cfg"
    prepared(golden, name, f"echo 'bootcmd: [[sleep, \"600\"]]' > {config}")
    told = armvm("start", "--wait", name, "--timeout", "100", timeout=160).failed(11).err
    assert "it got as far as: cloud-init" in told
    assert "its vCPUs are idle" in told or "systemd in it waits for" in told
    assert told.count("warning: ") >= 1
    assert "gets no further" not in told, "it may go on, and is waited for to the end"


def test_an_image_without_a_boot_loader(blank_image: Path, name: str) -> None:
    command = ("create", "--name", name, "--image", blank_image, "--preset", "minimal")
    told = armvm(*command, "--network", "user", "--timeout", "600", timeout=660).failed(11).err
    assert "its firmware found nothing to boot" in told
    assert "BOOTAA64.EFI" in told
    assert "gets no further" in told
