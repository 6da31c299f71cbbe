"""Start, stop, list and describe machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypedDict, cast

from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.base.result import (
    AcceleratorName,
    Cpus,
    Doc,
    Fingerprint,
    FirstNetwork,
    MacAddress,
    MachineName,
    MemoryMib,
    Networks,
    Port,
    UtcTime,
    Uuid,
)
from armvm.guest.boot.serial import Stage
from armvm.guest.identity import fingerprint
from armvm.host.agent import agent
from armvm.host.connection import Connection
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import portable
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import (
    STATES,
    Instance,
    find_domain,
    inactive_xml,
    instances,
    machines,
    observe,
)
from armvm.host.domain.metadata import ImageRecord
from armvm.host.facts import Accelerator
from armvm.host.network import forwards, networks
from armvm.images.trust.provenance import of_record
from armvm.provision.access.ssh import Endpoint, endpoint, restore_forward
from armvm.provision.machine import shared_connection
from armvm.provision.machine.fast import Tradeoffs, traded
from armvm.provision.machine.unfinished import is_left_behind
from armvm.settings.machine import Settings
from armvm.settings.networks import USER_NETWORK, Kind

#: Timeout for a guest's shutdown under KVM, in seconds; ten times that under emulation.
STOP_TIMEOUT = 60.0

_STATES = [*STATES.values(), "unfinished"]
State = Annotated[
    str,
    Doc(
        "libvirt's state of the domain; unfinished: left behind by an interrupted armvm.",
        enum=_STATES,
    ),
]
ListedState = Annotated[
    State,
    Doc(
        "libvirt's state of the domain; creating: armvm is creating it now; unfinished: left "
        "behind by an interrupted armvm.",
        enum=[*_STATES, "creating"],
    ),
]


@dataclass(frozen=True, kw_only=True)
class Login:
    """Where to log in by ssh."""

    host: Annotated[str, Doc("Host name or address.")]
    port: Annotated[Port, Doc("A TCP port.")]
    via: Annotated[str | None, Doc("The libvirt host to jump through; null: none.")]
    user: Annotated[str, Doc("The guest's user.")]


@dataclass(frozen=True, kw_only=True)
class MachineDetails:
    """All facts about a machine."""

    name: MachineName
    state: State
    uuid: Annotated[Uuid, Doc("The domain's UUID.")]
    cpus: Cpus
    memory_mib: MemoryMib
    cpu: Annotated[str, Doc("The CPU's model, or libvirt's mode: host-passthrough, maximum.")]
    accelerator: Annotated[AcceleratorName, Doc("kvm: the host's own CPU; tcg: emulated.")]
    network: FirstNetwork
    networks: Networks
    mac: MacAddress | None
    ssh: Annotated[Login | None, Doc("Where to log in by ssh; null: not known, or off.")]
    user: Annotated[str, Doc("The guest's user.")]
    host_key: Annotated[Fingerprint | None, Doc("Fingerprint of the ssh host key that armvm made.")]
    instance_id: Annotated[str, Doc("cloud-init's instance-id.")]
    image: ImageRecord
    provenance: Annotated[str, Doc("How the image was verified, in words.")]
    pool: Annotated[str, Doc("The storage pool of its volumes.")]
    overlay: Annotated[str | None, Doc("Path of the root disk.")]
    seed: Annotated[str | None, Doc("Path of the NoCloud seed.")]
    serial_log: Annotated[str | None, Doc("Path of the serial console's log.")]
    autostart: Annotated[bool, Doc("Whether libvirt starts it with the host.")]
    golden: Annotated[str | None, Doc("The golden that it was made from.")]
    fast: Annotated[Tradeoffs | None, Doc("What --fast changed, in words; null without it.")]
    created: Annotated[UtcTime, Doc("When it was made, in UTC.")]
    armvm_version: Annotated[str, Doc("The version of armvm that made it.")]
    settings: Settings


Stages = TypedDict(
    "Stages",
    {
        "started": Annotated[float, Doc("libvirt started it.")],
        "firmware": Annotated[float, Doc("The UEFI firmware runs.")],
        "kernel": Annotated[float, Doc("The kernel runs.")],
        "systemd": Annotated[float, Doc("systemd runs.")],
        "cloud-init": Annotated[float, Doc("cloud-init runs.")],
        "ssh": Annotated[float, Doc("ssh answers.")],
        "ready": Annotated[float, Doc("cloud-init has finished and a login works.")],
    },
    total=False,
)
Stages.__doc__ = "When each stage of the boot began, in seconds after the start."


@dataclass(frozen=True, kw_only=True)
class CreatedMachine(MachineDetails):
    """A new machine: what `armvm show` prints, and how long it took."""

    ready_seconds: Annotated[
        float | None, Doc("Seconds until it was ready; null: armvm did not wait.")
    ]
    stages: Annotated[
        Stages | None,
        Doc("When each stage of the boot began, in seconds; null: armvm did not wait."),
    ]


@dataclass(frozen=True, kw_only=True)
class GuestIdentity:
    """The guest's own report of its identity (--identity); null: it has no such thing."""

    hostname: Annotated[str, Doc("The kernel's host name.")]
    hostname_file: Annotated[str | None, Doc("The content of /etc/hostname.")]
    machine_id: Annotated[str | None, Doc("systemd's machine-id.")]
    dbus_id: Annotated[str | None, Doc("D-Bus's machine id.")]
    boot_id: Annotated[str | None, Doc("The kernel's boot id.")]
    instance_id: Annotated[str | None, Doc("cloud-init's instance-id.")]
    host_key: Annotated[str | None, Doc("The public ssh host key.")]
    system_uuid: Annotated[str | None, Doc("The UUID in the SMBIOS tables.")]
    mac: Annotated[list[MacAddress], Doc("MAC addresses of its network cards.")]
    random: Annotated[
        str, Doc("16 bytes of getrandom(2), in hexadecimal.", pattern="^[0-9a-f]{32}$")
    ]
    random_uuid: Annotated[str | None, Doc("A random UUID from the kernel.")]
    time: Annotated[float, Doc("The guest's clock, in seconds since 1970.")]


@dataclass(frozen=True, kw_only=True)
class ListedMachine:
    """A machine as `armvm list` shows it."""

    name: MachineName
    state: ListedState
    cpus: Cpus
    memory_mib: MemoryMib
    image: Annotated[str, Doc("The requested image reference.")]
    network: FirstNetwork
    networks: Networks
    ssh: Annotated[str | None, Doc("HOST:PORT to log in at; null: not known, or off.")]
    via: Annotated[str | None, Doc("The libvirt host to jump through; null: none.")]
    on: Annotated[
        str | None, Doc("With --on all or several hosts: its host's name in [hosts].")
    ] = None


def start(machine: Handle, progress: Progress) -> Instance:
    """Start a machine, its networks and its ssh forward. Raises Conflict if it is running."""
    known = networks.network_names(machine.connection)
    for card in machine.instance.cards:
        if card.to.kind is Kind.NETWORK and card.to.source in known:
            networks.ensure_active(machine.connection, card.to.source, progress)
    lifecycle.start(machine.domain)
    others = {one.record.forward or 0 for one in instances(machine.connection)}
    started = restore_forward(machine.again(), others).instance
    if started.record.forward != machine.record.forward:
        progress.say(
            f"port {machine.record.forward} is in use; ssh now uses port {started.record.forward}"
        )
    if started.network is None and started.record.ports:
        for rule in forwards.restore(machine.domain, started.record.ports):
            progress.warn(f"cannot forward {rule}: its port is in use on the host")
    return started


def stop(machine: Handle, *, force: bool, timeout: float | None) -> None:
    """Shut a machine down, or with *force* power it off. Does nothing if it is off.

    Then ends the shared connections to it.
    """
    if force:
        lifecycle.destroy(machine.domain)
    else:
        lifecycle.shutdown(
            machine.domain, STOP_TIMEOUT * machine.patience if timeout is None else timeout
        )
    shared_connection.close(machine.instance.uuid)


def portable_xml(connection: Connection, name: str) -> str:
    """Return the XML of an armvm machine in a form that other hosts can define."""
    domain = find_domain(connection, name)
    observe(domain)  # raises if armvm did not create it
    return portable(inactive_xml(domain))


def overviews(connection: Connection) -> list[ListedMachine]:
    """Return all machines as ``list`` shows them, by name."""
    found = []
    for one in machines(connection):
        try:
            where = _endpoint(connection, one) if one.running else None
        except NotFound:
            continue  # removed since it was listed
        found.append(overview(one, where))
    return found


def describe(machine: Handle) -> MachineDetails:
    """Return all facts about a machine, for ``show`` and ``--json``."""
    record = machine.record
    where = endpoint(machine) if machine.running else None
    return MachineDetails(
        name=machine.name,
        state=_state(machine.instance),
        uuid=machine.instance.uuid,
        cpus=machine.instance.cpus,
        memory_mib=machine.instance.memory_mib,
        cpu=machine.instance.cpu,
        accelerator=Accelerator(machine.instance.accelerator).name.lower(),
        network=machine.instance.network or USER_NETWORK,
        networks=machine.instance.networks,
        mac=machine.instance.mac,
        ssh=None
        if where is None
        else Login(host=where.host, port=where.port, via=where.via, user=record.user),
        user=record.user,
        host_key=fingerprint(record.host_key) if record.host_key else None,
        instance_id=record.instance_id,
        image=cast("ImageRecord", record.image),
        provenance=of_record(record.image),
        pool=record.pool,
        overlay=machine.instance.overlay,
        seed=machine.instance.seed,
        serial_log=machine.instance.serial_log,
        autostart=machine.instance.autostart,
        golden=record.golden,
        fast=traded(record),
        created=record.created,
        armvm_version=record.version,
        settings=cast("Settings", record.settings),
    )


def describe_created(
    machine: Handle, seconds: float | None, seen: Mapping[Stage, float] | None
) -> CreatedMachine:
    """Return `describe` of a new machine, with the seconds until it was ready.

    *seen* has the time at which each stage began, in seconds; both are None if armvm did not
    wait.
    """
    stages = None if seen is None else {one.value: round(at, 1) for one, at in seen.items()}
    return CreatedMachine(
        **vars(describe(machine)),
        ready_seconds=None if seconds is None else round(seconds, 1),
        stages=cast("Stages | None", stages),
    )


def identity(machine: Handle) -> GuestIdentity:
    """Return a running guest's own report of its identity, from its agent.

    Raises DomainError if it is not running or no agent answers, CommandFailed if the guest lacks
    Python.
    """
    from armvm.guest.agents import clone_identity  # other commands do not need it

    machine.require_running()
    pid = agent.start_process(machine.domain, clone_identity.guest_command("facts"))
    told = clone_identity.read_facts(agent.outcome(machine.domain, pid, timeout=STOP_TIMEOUT))
    values: dict[str, Any] = {one.name: told.get(one.name) for one in fields(GuestIdentity)}
    return GuestIdentity(**values)


def _state(instance: Instance, *, creating: bool = False) -> str:
    """Return libvirt's state of a machine, or ``unfinished`` or ``creating``."""
    if is_left_behind(instance):
        return "unfinished"
    return "creating" if creating and instance.record.creator else instance.state


def _endpoint(connection: Connection, instance: Instance) -> Endpoint | None:
    domain = find_domain(connection, instance.name)
    return endpoint(Handle(connection=connection, domain=domain, instance=instance))


def overview(instance: Instance, where: Endpoint | None) -> ListedMachine:
    """Return a machine as ``list`` shows it; *where* is its ssh address, None if unknown."""
    return ListedMachine(
        name=instance.name,
        state=_state(instance, creating=True),
        cpus=instance.cpus,
        memory_mib=instance.memory_mib,
        image=instance.record.image.get("reference", ""),
        network=instance.network or USER_NETWORK,
        networks=instance.networks,
        ssh=None if where is None else f"{where.host}:{where.port}",
        via=None if where is None else where.via,
    )
