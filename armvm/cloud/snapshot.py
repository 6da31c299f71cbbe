"""Snapshots of a server's disk: images that Nova makes, marked with the server's ID."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Annotated, Any

from armvm.base.errors import Conflict, DomainError, NotFound, NotReady, StorageError
from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.base.result import Doc, Size
from armvm.base.signals import shielded
from armvm.cloud.connection import Connection, answers, said
from armvm.cloud.power import LOOK, reach
from armvm.cloud.server import Server
from armvm.settings.names import check_snapshot_name, next_name

#: Properties of a snapshot's image: its name, its server's ID, and the server's state.
NAME, SERVER, STATE = "armvm_snapshot", "armvm_server", "armvm_state"
#: Seconds for a snapshot, whose size is that of the disk.
TIMEOUT = 3600.0
_ID = re.compile(r"[0-9a-fA-F-]{32,36}")


@dataclass(frozen=True, kw_only=True)
class ServerSnapshot:
    """A snapshot of a server's disk: an image of the project."""

    name: Annotated[str, Doc("Its name.")]
    created: Annotated[str, Doc("When it was taken, as Glance tells it.")]
    state: Annotated[
        str,
        Doc("off: the server was off; running: like after a power cut.", enum=["off", "running"]),
    ]
    size: Annotated[Size | None, Doc("Bytes in Glance; null: not known.")]
    image: Annotated[str, Doc("The ID of its image.")]
    status: Annotated[str, Doc("The image's status: active, if the snapshot can be used.")]


def snapshots(connection: Connection, server: Server) -> list[ServerSnapshot]:
    """Return a server's snapshots, the oldest first."""
    api = connection.api
    with answers(connection.cloud, "listing the images"):
        project = api.current_project_id
        found = [
            snapshot
            for one in api.image.images(owner=project)
            if (snapshot := _read(one, server, project)) is not None
        ]
    return sorted(found, key=lambda one: (one.created, one.name))


def create(
    connection: Connection, server: Server, name: str | None, progress: Progress
) -> ServerSnapshot:
    """Take a snapshot called *name*, by default snap-01, snap-02, …; wait until it is complete.

    An incomplete one is deleted. Raises Conflict if the name exists, StorageError if Nova fails.
    """
    taken = {one.name for one in snapshots(connection, server)}
    name = check_snapshot_name(name or next_name(taken, "snap"))
    if name in taken:
        raise Conflict(
            f"snapshot {name} of {server.name} already exists", hint="choose another name"
        )
    if server.status not in ("ACTIVE", "SHUTOFF"):
        raise Conflict(f"no snapshot can be taken of a server that is {server.state}")
    state = "running" if server.running else "off"
    marks = {NAME: name, SERVER: server.id, STATE: state}
    try:
        with progress.task(f"taking snapshot {name} of {server.name}"):
            with answers(connection.cloud, "taking the snapshot"):
                connection.api.compute.create_server_image(
                    server.id, f"{server.name}-{name}", metadata=marks
                )
            return until(
                lambda: _complete(connection, server, name),
                timeout=TIMEOUT,
                interval=LOOK,
                late=lambda: NotReady(f"timed out: snapshot {name} is not complete"),
            )
    except BaseException:
        with shielded():
            for one in snapshots(connection, server):
                if one.name == name:
                    delete(connection, server, name)
        raise


def find(connection: Connection, server: Server, name: str) -> ServerSnapshot:
    """Return a snapshot of a server. Raises NotFound."""
    for one in snapshots(connection, server):
        if one.name == check_snapshot_name(name):
            return one
    raise NotFound(
        f"snapshot {name} of {server.name} not found",
        hint=f"list them: armvm snapshot list {server.name} --on {connection.cloud.name}",
    )


def revert(connection: Connection, server: Server, name: str, progress: Progress) -> None:
    """Rebuild a server that is off from a snapshot. Address, metadata and host key stay."""
    if server.status != "SHUTOFF":
        raise DomainError(
            f"{server.name} is not off: {server.state}",
            hint=f"stop it first: armvm stop {server.name} --on {connection.cloud.name}",
        )
    found = find(connection, server, name)
    if found.status != "active":
        raise StorageError(f"snapshot {name} cannot be used: its image is {found.status}")
    with progress.task(f"reverting {server.name} to {name}"):
        with answers(connection.cloud, f"reverting {server.name}"):
            connection.api.compute.rebuild_server(server.id, found.image)
        # Nova answers before it changes the status, and stops the server again at the end.
        time.sleep(LOOK)
        reach(connection, server, ("SHUTOFF",), "revert")


def delete(connection: Connection, server: Server, name: str) -> None:
    """Delete a snapshot."""
    found = find(connection, server, name)
    with answers(connection.cloud, f"deleting snapshot {name}"):
        connection.api.image.delete_image(found.image, ignore_missing=True)


def _complete(connection: Connection, server: Server, name: str) -> ServerSnapshot | None:
    found = next((one for one in snapshots(connection, server) if one.name == name), None)
    if found is None:
        return None
    if found.status in ("killed", "deleted", "pending_delete"):
        raise StorageError(f"the cloud could not take snapshot {name}: its image is {found.status}")
    return found if found.status == "active" else None


def _read(one: Any, server: Server, project: str) -> ServerSnapshot | None:
    """Return a snapshot of *server* from Glance's answer; None for any other image."""
    document = one.to_dict()
    document |= document.get("properties") or {}
    ours = project in (document.get("owner_id"), document.get("owner"))
    if not ours or document.get(SERVER) != server.id or not _ID.fullmatch(str(one.id)):
        return None
    size = document.get("size")
    status = said(str(document.get("status")))
    return ServerSnapshot(
        name=said(str(document.get(NAME))),
        created=said(str(document.get("created_at") or "")),
        state="off" if document.get(STATE) == "off" else "running",
        size=size if isinstance(size, int) and size >= 0 else None,
        image=str(one.id),
        status=status,
    )
