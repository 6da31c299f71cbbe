"""``armvm create --on CLOUD``: plan servers, create them, and undo what fails."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from armvm import __version__
from armvm.base.errors import ArmvmError, ConfigError, Conflict, DomainError, NotFound, NotReady
from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.base.result import Digest, Doc, MachineName
from armvm.base.signals import shielded
from armvm.cloud import image as images
from armvm.cloud import server as servers
from armvm.cloud.connection import Connection, answers, said
from armvm.cloud.power import delete, wait_gone
from armvm.cloud.server import LONGEST, Server
from armvm.cloud.wait import TIMEOUT, Ready, wait_ready
from armvm.guest.boot.ready import Boot
from armvm.guest.cloudinit.documents import compose
from armvm.guest.identity import Identity, new_identity
from armvm.images.model import Image, ImageSource, Verified
from armvm.settings.machine import Machine
from armvm.settings.names import check_machine_name, check_user_name, next_name, shown
from armvm.settings.system import FALLBACK_USER

#: Seconds for Nova to place and start a server, and between two looks.
BUILD_TIMEOUT, LOOK = 900.0, 2.0
#: Nova's limit for user-data, in characters of base64 (MAX_USERDATA_SIZE in nova/api).
MAX_USER_DATA = 65535
#: Nova writes no GIC for emulated servers, which means version 2: QEMU then accepts 8 vCPUs.
MAX_EMULATED_CPUS = 8


@dataclass(frozen=True, kw_only=True)
class PlannedServer:
    """A server that would be created."""

    name: MachineName
    on: Annotated[str, Doc("The cloud's name in [clouds].")]
    image: Annotated[str, Doc("The image's reference.")]
    digest: Annotated[Digest | None, Doc("The image's published digest; null: none.")]
    verified: Annotated[Verified, Doc("How the image is verified.")]
    flavor: Annotated[str, Doc("The flavor's name.")]
    cpus: Annotated[int | None, Doc("The flavor's vCPUs.")]
    memory_mib: Annotated[int | None, Doc("The flavor's memory in MiB.")]
    disk_gib: Annotated[int | None, Doc("The flavor's disk in GiB; 0: the image's size.")]
    network: Annotated[str, Doc("The network's name.")]
    user: Annotated[str, Doc("The guest's user.")]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What servers of one call share; ``flavor`` and ``network`` are IDs."""

    machine: Machine
    source: ImageSource
    user: str
    flavor: str
    network: str
    shown: PlannedServer

    def summary(self, name: str) -> PlannedServer:
        """Return what `create --dry-run` shows for the server *name*."""
        return replace(self.shown, name=name)


@dataclass(frozen=True, kw_only=True)
class Created:
    """A new server; ``ready`` is None if it is not ready, or if armvm did not wait."""

    server: Server
    ready: Ready | None


def free_names(connection: Connection, prefix: str, count: int) -> list[str]:
    """Return *count* names ``PREFIX-NN`` that no server of the project has."""
    taken, found = servers.names_taken(connection), []
    for _ in range(count):
        found.append(check_machine_name(next_name(taken, prefix)))
        taken.add(found[-1])
    return found


def check_free(connection: Connection, name: str) -> None:
    """Raise Conflict if a server of the project has the name."""
    if name in servers.names_taken(connection):
        raise Conflict(
            f"{name} already exists on {connection.cloud.name}", hint="choose another --name"
        )


def plan(connection: Connection, machine: Machine, source: ImageSource, progress: Progress) -> Plan:
    """Decide what servers of *machine* are made of, and create nothing.

    Raises NotFound for an unknown flavor or network, and ConfigError for a tuned image or one that
    is larger than the flavor's disk.
    """
    cloud = connection.cloud
    check_tuned(machine)
    flavor = _find(connection, "flavor", cloud.flavor, connection.api.compute.flavors)
    network = _find(connection, "network", cloud.network, connection.api.network.networks)
    user = machine.user or check_user_name(
        source.system.default_user if source.system else FALLBACK_USER
    )
    cpus, disk = _number(flavor, "vcpus"), _number(flavor, "disk")
    if cpus is not None and cpus > MAX_EMULATED_CPUS:
        progress.warn(
            f"flavor {cloud.flavor} has {cpus} vCPUs: on hosts that emulate ARM64, servers start "
            f"with at most {MAX_EMULATED_CPUS}"
        )
    _check_disk(cloud.flavor, disk, source.virtual_size)
    return Plan(
        machine=machine,
        source=source,
        user=user,
        flavor=str(flavor.id),
        network=str(network.id),
        shown=PlannedServer(
            name=machine.name,
            on=cloud.name,
            image=source.reference,
            digest=source.digest,
            verified=source.verified,
            flavor=cloud.flavor,
            cpus=cpus,
            memory_mib=_number(flavor, "ram"),
            disk_gib=disk,
            network=cloud.network,
            user=user,
        ),
    )


def create_all(
    connection: Connection,
    planned: Plan,
    image: Image,
    names: Sequence[str],
    *,
    wait: bool,
    timeout: float | None,
    progress: Progress,
    tell: Callable[[Created], None],
) -> None:
    """Create a server for each of *names*; call *tell* for each once it runs or is ready.

    After the first failure no further server is created; those that exist are waited for and kept,
    and the failure is raised at the end. An interruption removes the servers that are being created
    or waited for. The timeout counts from each server's start.
    """
    _check_disk(planned.shown.flavor, planned.shown.disk_gib, image.virtual_size)
    copy = images.ensure(connection, image, progress)
    failures: list[ArmvmError] = []
    booting: list[tuple[Server, float]] = []
    try:
        for name in names:
            try:
                server = create(connection, planned, image, copy, name, progress)
            except ArmvmError as error:
                failures.append(error)
                break
            if wait:
                booting.append((server, time.monotonic()))
            else:
                tell(Created(server=server, ready=None))
        while booting:
            server, since = booting[0]
            waited = time.monotonic() - since
            ready = None
            try:
                limit = max(1.0, (TIMEOUT if timeout is None else timeout) - waited)
                ready = wait_ready(connection, server, timeout=limit, progress=progress)
                seen = {stage: at + waited if at else at for stage, at in ready.boot.seen.items()}
                ready = replace(ready, boot=Boot(seen=seen))
            except ArmvmError as error:  # not ready in time, or cloud-init failed: keep it
                failures.append(error)
            booting.pop(0)
            tell(Created(server=server if ready is None else ready.server, ready=ready))
    except Exception:
        raise  # the servers are complete: keep them
    except BaseException:  # Ctrl-C, SIGTERM
        with shielded():
            for server, _ in booting:
                progress.say(f"interrupted: removing {server.name}")
                _remove(connection, server.armvm_id, progress)
        raise
    for other in failures[1:]:
        progress.warn(other.message)
    if failures:
        raise failures[0]


def create(
    connection: Connection, planned: Plan, image: Image, copy: str, name: str, progress: Progress
) -> Server:
    """Create one server of the image *copy*, and wait until Nova has started it.

    On failure or interruption the server and its port are deleted. Raises ConfigError for
    user-data that is too large, HostError for an exceeded quota, DomainError if Nova cannot run
    the server, NotReady if it takes too long.
    """
    identity = new_identity(name)
    body = _request(planned, image, copy, name, identity)
    task = progress.task(f"{name}: creating the server")
    try:
        with task:
            with answers(connection.cloud, f"creating server {name}"):
                number = str(connection.api.compute.create_server(**body).id)
            return until(
                lambda: _built(connection, number, name),
                timeout=BUILD_TIMEOUT,
                interval=LOOK,
                late=lambda: NotReady(
                    f"timed out after {BUILD_TIMEOUT:g} s: {connection.cloud.name} has not started "
                    f"{name}; it was removed",
                    hint="look at the cloud's load: openstack server list",
                ),
            )
    except BaseException:
        with shielded():
            _remove(connection, identity.instance_id, progress)
        raise


def user_data(planned: Plan, name: str, identity: Identity) -> str:
    """Return the user-data of a server in base64. Raises ConfigError if Nova would refuse it."""
    machine = replace(planned.machine, name=name)
    documents = compose(
        machine, identity, planned.user, system=planned.source.system, portable=True
    )
    encoded = base64.b64encode(documents.user_data.encode()).decode()
    if len(encoded) > MAX_USER_DATA:
        raise ConfigError(
            f"user-data of {len(documents.user_data.encode())} bytes is too large for a cloud",
            hint=f"Nova accepts about {MAX_USER_DATA * 3 // 4} bytes: use a smaller --user-data",
        )
    return encoded


def check_tuned(machine: Machine) -> None:
    """Raise ConfigError for a tuned image, whose cloud-init looks for a seed disk only."""
    if machine.tuned:
        raise ConfigError(
            "a tuned image cannot be used on a cloud: it accepts only armvm's seed disk",
            hint="use the image itself: --no-tuned",
        )


def _request(
    planned: Plan, image: Image, copy: str, name: str, identity: Identity
) -> dict[str, Any]:
    """Return the arguments of openstacksdk's create_server."""
    machine = planned.machine
    login = next((key for key in machine.ssh_keys if machine.own_key), "")
    metadata = {
        servers.MARK: __version__,
        servers.ID: identity.instance_id,
        servers.USER: planned.user,
        servers.HOST_KEY: " ".join(identity.host_key.public.split()[:2]),
        servers.LOGIN_KEY: " ".join(login.split()[:2]),
        servers.IMAGE: said(planned.source.reference)[:LONGEST],
        servers.DIGEST: image.digest,
    }
    return {
        "name": name,
        "image_id": copy,
        "flavor_id": planned.flavor,
        "networks": [{"uuid": planned.network}],
        "config_drive": True,
        "user_data": user_data(planned, name, identity),
        "metadata": {key: value for key, value in metadata.items() if value},
    }


def _built(connection: Connection, number: str, name: str) -> Server | None:
    """Return the server once it runs; None while Nova builds it. Raises DomainError."""
    found = servers.told(connection, number, name)
    if found is None:
        raise DomainError(f"cloud {connection.cloud.name} gave {name} other metadata or no ID")
    if found.status == "ERROR":
        raise DomainError(
            f"cloud {connection.cloud.name} cannot run {name}; it was removed",
            detail=found.fault,
            hint=f"check that its hosts run ARM64 and have room for flavor {found.flavor}",
        )
    return found if found.status == "ACTIVE" else None


def _remove(connection: Connection, armvm_id: str, progress: Progress) -> None:
    """Delete the servers with an armvm-id, and ports that they left; print what remains.

    The ID also finds a server whose creation was interrupted before Nova's answer came.
    """
    try:
        for one in servers.servers(connection):
            if one.armvm_id == armvm_id:
                delete(connection, one)
                wait_gone(connection, one)
                _remove_ports(connection, one)
    except ArmvmError as error:
        progress.warn(f"{error.message}; check: armvm list --on {connection.cloud.name}")


def _remove_ports(connection: Connection, server: Server) -> None:
    """Delete the ports of a deleted server. Nova deletes them, unless that failed."""
    with answers(connection.cloud, "deleting the port"):
        for port in list(connection.api.network.ports(device_id=server.id)):
            if port.device_id == server.id:
                connection.api.network.delete_port(port.id, ignore_missing=True)


def _find(connection: Connection, kind: str, name: str, listed: Callable[[], Any]) -> Any:
    """Return the flavor or the network with a name or ID. Raises NotFound and Conflict."""
    place = f"{connection.cloud.place}: [clouds.{connection.cloud.name}] {kind}"
    with answers(connection.cloud, f"listing the {kind}s"):
        there = list(listed())
    found = [one for one in there if one.id == name] or [one for one in there if one.name == name]
    if not found:
        names = sorted({said(str(one.name)) for one in there})
        known = ", ".join(names[:20]) or "none"
        raise NotFound(f"{place}: {kind} {shown(name)} not found", hint=f"known: {known}")
    if len(found) > 1:
        raise Conflict(f"{place}: {len(found)} {kind}s are called {shown(name)}", hint="use an ID")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", str(found[0].id)):
        raise NotFound(f"{place}: {kind} {shown(name)} has an invalid ID")
    return found[0]


def _number(told: Any, key: str) -> int | None:
    value = getattr(told, key, None)
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else None


def _check_disk(flavor: str, gib: int | None, virtual_size: int | None) -> None:
    """Raise ConfigError if the image's disk is larger than the flavor's."""
    if gib and virtual_size is not None and virtual_size > gib << 30:
        raise ConfigError(
            f"the disk of flavor {flavor} ({gib} GiB) is smaller than the image's disk",
            hint=f"use a flavor with {-(-virtual_size // (1 << 30))} GiB or more",
        )
