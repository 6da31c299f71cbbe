"""Everyday verbs over machines: start, stop, list, describe."""

from __future__ import annotations

from typing import Any

from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.guest.identity import fingerprint
from armvm.host.agent import agent
from armvm.host.connection import Connection
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import portable
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance, find_domain, inactive_xml, instances, observe
from armvm.host.facts import Accelerator
from armvm.host.network import forwards, networks
from armvm.images.trust.provenance import of_record
from armvm.provision.access.ssh import Endpoint, endpoint, restore_forward
from armvm.provision.machine.fast import traded
from armvm.provision.machine.unfinished import is_left_behind

#: Seconds a guest has to shut down under KVM; emulation gets ten times that.
STOP_TIMEOUT = 60.0


def start(machine: Handle, progress: Progress) -> Instance:
    """Start a machine, with its network and its ssh forward. Raises Conflict when it runs."""
    if machine.instance.network is not None and machine.instance.network in networks.network_names(
        machine.connection
    ):
        networks.ensure_active(machine.connection, machine.instance.network, progress)
    lifecycle.start(machine.domain)
    others = {one.record.forward or 0 for one in instances(machine.connection)}
    started = restore_forward(machine.again(), others).instance
    if started.record.forward != machine.record.forward:
        progress.say(
            f"port {machine.record.forward} is taken; ssh is at port {started.record.forward} now"
        )
    if started.network is None and started.record.ports:
        for rule in forwards.restore(machine.domain, started.record.ports):
            progress.warn(f"the forward {rule} cannot be had: its port is taken on the host")
    return started


def stop(machine: Handle, *, force: bool, timeout: float | None) -> None:
    """Shut a machine down, or pull its plug. One that is off already is no error."""
    if force:
        lifecycle.destroy(machine.domain)
        return
    lifecycle.shutdown(
        machine.domain, STOP_TIMEOUT * machine.patience if timeout is None else timeout
    )


def portable_xml(connection: Connection, name: str) -> str:
    """Return the XML of a machine of ours, as other hosts can define it."""
    domain = find_domain(connection, name)
    observe(domain)  # refuses what is not ours
    return portable(inactive_xml(domain))


def overviews(connection: Connection) -> list[dict[str, Any]]:
    """Return a line for ``list`` for every machine, by name."""
    found = []
    for one in instances(connection):
        try:
            where = _endpoint(connection, one) if one.running else None
        except NotFound:
            continue  # removed in between
        found.append(overview(one, where))
    return found


def describe(machine: Handle) -> dict[str, Any]:
    """Return all that is known of a machine as plain values, for ``show`` and ``--json``."""
    record = machine.record
    where = endpoint(machine) if machine.running else None
    return {
        "name": machine.name,
        "state": _state(machine.instance),
        "uuid": machine.instance.uuid,
        "cpus": machine.instance.cpus,
        "memory_mib": machine.instance.memory_mib,
        "cpu": machine.instance.cpu,
        "accelerator": Accelerator(machine.instance.accelerator).name.lower(),
        "network": machine.instance.network or "user",
        "mac": machine.instance.mac,
        "ssh": None
        if where is None
        else {"host": where.host, "port": where.port, "via": where.via, "user": record.user},
        "user": record.user,
        "host_key": fingerprint(record.host_key) if record.host_key else None,
        "instance_id": record.instance_id,
        "image": record.image,
        "provenance": of_record(record.image),
        "pool": record.pool,
        "overlay": machine.instance.overlay,
        "seed": machine.instance.seed,
        "serial_log": machine.instance.serial_log,
        "autostart": machine.instance.autostart,
        "golden": record.golden,
        "fast": traded(record),
        "created": record.created,
        "armvm_version": record.version,
        "settings": record.settings,
    }


def identity(machine: Handle) -> dict[str, Any]:
    """Ask a running guest who it is, through its agent.

    Raises DomainError when it does not run or no agent answers, CommandFailed when the guest has
    no Python.
    """
    from armvm.guest.agents import clone_identity  # other commands need none of it

    machine.require_running()
    pid = agent.start_process(machine.domain, clone_identity.guest_command("facts"))
    return clone_identity.read_facts(agent.outcome(machine.domain, pid, timeout=STOP_TIMEOUT))


def _state(instance: Instance, *, creating: bool = False) -> str:
    """Return libvirt's state of a machine, or that it is unfinished (or being created)."""
    if is_left_behind(instance):
        return "unfinished"
    return "creating" if creating and instance.record.creator else instance.state


def _endpoint(connection: Connection, instance: Instance) -> Endpoint | None:
    domain = find_domain(connection, instance.name)
    return endpoint(Handle(connection=connection, domain=domain, instance=instance))


def overview(instance: Instance, where: Endpoint | None) -> dict[str, Any]:
    """Return a machine's line in ``list``, with *where* its ssh is."""
    return {
        "name": instance.name,
        "state": _state(instance, creating=True),
        "cpus": instance.cpus,
        "memory_mib": instance.memory_mib,
        "image": instance.record.image.get("reference", ""),
        "network": instance.network or "user",
        "ssh": None if where is None else f"{where.host}:{where.port}",
        "via": None if where is None else where.via,
    }
