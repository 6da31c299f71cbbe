"""A wait that gets nowhere says what is wrong with the guest, and what to do."""

from __future__ import annotations

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
