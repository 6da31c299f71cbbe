"""What doctor says of a host that is not this one."""

from __future__ import annotations

import time

import pytest

from armvm.provision.inspect.doctor import diagnose


def test_a_host_that_ssh_does_not_reach_is_not_waited_for() -> None:
    """Asked of ssh itself: nobody listens at that port. libvirt is not asked then."""
    begun = time.monotonic()
    way, libvirt, *_ = diagnose("qemu+ssh://me@127.0.0.1:9/system?keyfile=/nowhere")
    assert time.monotonic() - begun < 40
    assert not way.ok
    assert way.needed
    assert "refused" in way.found
    assert way.fix == "make this work: ssh -p 9 -l me -i /nowhere -v -- 127.0.0.1"
    assert not libvirt.ok
    assert "ssh to the host failed" in libvirt.found


@pytest.mark.parametrize("uri", ["test:///default", "qemu:///nowhere"])
def test_this_host_needs_no_way(uri: str) -> None:
    assert {"way", "other host"}.isdisjoint(check.name for check in diagnose(uri))
