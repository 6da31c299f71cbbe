"""Whether a machine writes to the disk that bears its name: needed to copy or rename it."""

from __future__ import annotations

from pathlib import PurePosixPath

from armvm.errors import Conflict
from armvm.host import storage
from armvm.host.instance import Instance


def assert_own_disk(instance: Instance) -> None:
    """Raise Conflict for a machine on an overlay of another tool's, or of a killed snapshot's."""
    disk = PurePosixPath(instance.overlay or "").name
    if disk == storage.volume_names(instance.name)["overlay"]:
        return
    raise Conflict(
        f"{instance.name} writes to {disk}: an external snapshot, or what a killed armvm left",
        hint="merge it into its own disk, while the machine runs: "
        f"virsh blockcommit {instance.name} vda --active --pivot",
    )
