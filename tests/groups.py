"""Which test files run in one process, one after another, where real guests are concerned.

A golden takes a minute or two to bake, so files that use one golden share a process. All other
files are dealt out as they are. The dear ones come first: the two processes then end together.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

#: Groups in the order in which they begin, by the names of their files below tests/.
GROUPS: tuple[tuple[str, ...], ...] = (
    # The goldens: tests.boot.conftest.golden, and saved, which is slow.
    (
        "boot/test_warm.py",
        "boot/test_warm_background.py",
        "boot/test_pool.py",
        "boot/test_accelerate.py",
        "boot/test_disks.py",
        "boot/test_warm_routes.py",
        "boot/test_access.py",
        "boot/test_cp_bulk.py",
        "boot/test_shared_connection.py",
        "boot/test_verbs.py",
        "boot/test_slow.py",
        "boot/test_console.py",
    ),
    # Slow ones.
    ("boot/test_tuned.py",),
    ("boot/test_golden_install.py",),
    ("boot/test_warm_verbs.py",),
    # Those that make root file systems: they share one, and the host's table of handlers.
    (
        "boot/test_rootfs.py",
        "libvirt/test_rootfs_real.py",
        "libvirt/test_binfmt_real.py",
        "libvirt/test_image_install.py",
    ),
    # An ordinary user with a session daemon of his own.
    ("boot/test_session.py", "boot/test_verbs_session.py", "boot/test_build.py"),
    (
        "remote/test_remote.py",
        "remote/test_fleet.py",
        "remote/test_pool.py",
        "remote/test_accelerate.py",
    ),
    ("hosts/test_quick.py",),
    ("boot/test_system.py",),
    # One stops the network armvm, on which the other starts machines.
    ("libvirt/test_verbs_disks.py", "libvirt/test_network.py", "libvirt/test_networks.py"),
    # Slow ones.
    ("boot/test_ubuntu.py",),
    ("boot/test_fast.py",),
)
_PLACES = {file: number for number, file in enumerate(file for group in GROUPS for file in group)}
_GROUP_OF = {file: number for number, group in enumerate(GROUPS) for file in group}


def file_of(nodeid: str) -> str:
    """Return a test's file below tests/."""
    return nodeid.split("::", 1)[0].removeprefix("tests/")


def place(nodeid: str) -> int:
    """Return where a test's file stands in the order of the groups; the others come last."""
    return _PLACES.get(file_of(nodeid), len(_PLACES))


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """xdist's scheduler of whole modules, for groups of them, in the order of their collection."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return str(_GROUP_OF.get(file, file))
