"""Pools: what another process's work in them means for ours."""

from __future__ import annotations

from dataclasses import dataclass, field

import libvirt
import pytest

from armvm.host.storage.pools import refresh

BUSY = "internal error: pool 'armvm' has asynchronous jobs running."


@dataclass
class Pool:
    """A pool that answers a refresh with these errors, one after another, and then with success."""

    errors: list[str]
    asked: list[int] = field(default_factory=list)

    def refresh(self, flags: int) -> None:
        self.asked.append(flags)
        if self.errors:
            raise libvirt.libvirtError(self.errors.pop(0))


def test_a_volume_being_made_by_another_process_is_waited_for() -> None:
    pool = Pool([BUSY, BUSY])
    refresh(pool)
    assert pool.asked == [0, 0, 0]


def test_other_errors_are_told_at_once() -> None:
    pool = Pool(["no such pool"])
    with pytest.raises(libvirt.libvirtError, match="no such pool"):
        refresh(pool)
    assert pool.asked == [0]
