"""What the commands print about a cloud's servers, as text or with ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

from armvm.base.result import Digest, Doc, Fingerprint, MacAddress, MemoryMib
from armvm.cloud import login
from armvm.cloud.connection import Connection
from armvm.cloud.server import Address, Server
from armvm.guest.boot.serial import Stage
from armvm.guest.identity import fingerprint

_STATE = (
    "running, shut off, building or error; other states have Nova's name in lower case: paused, …"
)
Name = Annotated[str, Doc("The server's name.")]
On = Annotated[str, Doc("The cloud's name in [clouds].")]
State = Annotated[str, Doc(_STATE)]


@dataclass(frozen=True, kw_only=True)
class AddressInfo:
    """An address of a server."""

    version: Annotated[int, Doc("4 or 6.", enum=[4, 6])]
    address: Annotated[str, Doc("The address.")]
    network: Annotated[str, Doc("The network's name.")]
    mac: Annotated[MacAddress | None, Doc("MAC address of the card.")]
    floating: Annotated[bool, Doc("Whether it is a floating IP address.")]


@dataclass(frozen=True, kw_only=True)
class ListedServer:
    """A cloud's server as `armvm list --on` shows it."""

    name: Name
    state: State
    flavor: Annotated[str, Doc("The flavor's name.")]
    cpus: Annotated[int | None, Doc("Number of vCPUs; null: Nova does not tell.")]
    memory_mib: Annotated[int | None, Doc("Memory in MiB; null: Nova does not tell.")]
    image: Annotated[str, Doc("The requested image reference.")]
    ssh: Annotated[str | None, Doc("ADDRESS:PORT to log in at; null: no address yet.")]
    on: On


@dataclass(frozen=True, kw_only=True)
class ServerDetails:
    """All facts about a cloud's server."""

    name: Name
    state: State
    on: On
    id: Annotated[str, Doc("The server's ID in Nova.", format="uuid")]
    flavor: Annotated[str, Doc("The flavor's name.")]
    cpus: Annotated[int | None, Doc("Number of vCPUs; null: Nova does not tell.")]
    memory_mib: Annotated[MemoryMib | None, Doc("Memory in MiB; null: Nova does not tell.")]
    ssh: Annotated[str | None, Doc("ADDRESS:PORT to log in at; null: no address yet.")]
    user: Annotated[str | None, Doc("The guest's user.")]
    host_key: Annotated[Fingerprint | None, Doc("Fingerprint of the ssh host key that armvm made.")]
    image: Annotated[str, Doc("The requested image reference.")]
    digest: Annotated[Digest | None, Doc("The image's digest.")]
    addresses: Annotated[list[AddressInfo], Doc("Its addresses, IPv4 first.")]
    created: Annotated[str, Doc("When it was made, as Nova tells it.")]
    armvm_version: Annotated[str, Doc("The version of armvm that made it.")]
    fault: Annotated[str | None, Doc("Nova's message, in the state error.")]


@dataclass(frozen=True, kw_only=True)
class CreatedServer(ServerDetails):
    """A new server: what `armvm show --on` prints, and how long it took."""

    ready_seconds: Annotated[
        float | None, Doc("Seconds until it was ready; null: armvm did not wait.")
    ]
    stages: Annotated[
        dict[str, Annotated[float, Doc("Seconds.")]] | None,
        Doc("When each stage of the boot began, in seconds; null: armvm did not wait."),
    ]


@dataclass(frozen=True, kw_only=True)
class ServerAddresses:
    """Where a cloud's server is reached."""

    name: Name
    state: State
    on: On
    addresses: Annotated[list[AddressInfo], Doc("Its addresses, IPv4 first.")]


def listed(connection: Connection, server: Server) -> ListedServer:
    """Return a server as ``list`` shows it."""
    return ListedServer(
        name=server.name,
        state=server.state,
        flavor=server.flavor,
        cpus=server.cpus,
        memory_mib=server.memory_mib,
        image=server.image,
        ssh=_ssh(server),
        on=connection.cloud.name,
    )


def details(connection: Connection, server: Server) -> ServerDetails:
    """Return all facts about a server, for ``show``."""
    return ServerDetails(
        name=server.name,
        state=server.state,
        on=connection.cloud.name,
        id=server.id,
        flavor=server.flavor,
        cpus=server.cpus,
        memory_mib=server.memory_mib,
        ssh=_ssh(server),
        user=server.user,
        host_key=fingerprint(server.host_key) if server.host_key else None,
        image=server.image,
        digest=server.digest,
        addresses=[_address(one) for one in server.addresses],
        created=server.created,
        armvm_version=server.version,
        fault=server.fault,
    )


def created(
    connection: Connection, server: Server, seen: Mapping[Stage, float] | None
) -> CreatedServer:
    """Return a new server as ``create`` shows it; *seen* are the stages of its boot."""
    known = details(connection, server)
    return CreatedServer(
        **{one.name: getattr(known, one.name) for one in fields(known)},
        ready_seconds=None if seen is None else round(seen[Stage.READY], 2),
        stages=None if seen is None else {one.value: round(at, 2) for one, at in seen.items()},
    )


def addresses(connection: Connection, server: Server) -> ServerAddresses:
    """Return a server's addresses, for ``ip``."""
    return ServerAddresses(
        name=server.name,
        state=server.state,
        on=connection.cloud.name,
        addresses=[_address(one) for one in server.addresses],
    )


def _address(one: Address) -> AddressInfo:
    return AddressInfo(
        version=one.version,
        address=one.address,
        network=one.network,
        mac=one.mac,
        floating=one.floating,
    )


def _ssh(server: Server) -> str | None:
    address = server.address
    if address is None:
        return None
    return f"[{address}]:{login.PORT}" if ":" in address else f"{address}:{login.PORT}"
