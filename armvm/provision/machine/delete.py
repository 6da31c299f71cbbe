"""Remove a machine with its domain, NVRAM, volumes and known host key."""

from __future__ import annotations

from armvm.base.errors import NotFound
from armvm.base.progress import Progress
from armvm.base.signals import shielded
from armvm.host.connection import Connection, Pool
from armvm.host.domain import lifecycle
from armvm.host.domain.handle import Handle, find_machine
from armvm.host.domain.instance import Instance, domain_exists, find_domain, instances, observe
from armvm.host.storage import pools, volumes
from armvm.host.storage.base_image import remove_if_abandoned
from armvm.provision.machine import network
from armvm.provision.machine.known_hosts import forget_host
from armvm.provision.machine.own_disk import clear_volumes, delete_machine_volumes
from armvm.provision.machine.unfinished import assert_whole, is_left_behind, myself


def assert_there(connection: Connection, name: str, *, pool_name: str) -> None:
    """Raise NotFound if `delete` would find nothing to remove."""
    try:
        observe(find_domain(connection, name))
    except NotFound:
        pool = pools.find_pool(connection, pool_name)
        if domain_exists(connection, name) or not (pool and volumes.machine_volumes(pool, name)):
            raise


def delete(connection: Connection, name: str, *, pool_name: str) -> list[str]:
    """Remove a machine, running or not, and return the names of the volumes removed.

    If no such domain exists, removes the volumes that a killed create left under its name. Raises
    NotFound if nothing has that name, or if the domain was not created by armvm.
    """
    try:
        machine = find_machine(connection, name)
    except NotFound:
        pool = pools.find_pool(connection, pool_name)
        if pool is not None:
            removed = clear_volumes(connection, pool, name)
            if removed:
                return removed
        raise
    creator = machine.record.creator
    if not is_left_behind(machine.instance) and creator and creator.pid:
        assert_whole(machine.instance)
    return delete_domain(machine)


def delete_domain(machine: Handle) -> list[str]:
    """Remove a domain that armvm created, and return the names of its volumes."""
    with shielded():
        lifecycle.destroy(machine.domain)
        # The volumes first: as long as the domain exists, another delete can finish the work.
        pool = pools.find_pool(machine.connection, machine.record.pool)
        removed = delete_machine_volumes(pool, machine.name) if pool else []
        removed += _remove_half_base(pool, machine.instance) if pool else []
        network.leave(machine.connection, machine.instance)
        lifecycle.undefine(machine.domain)
        forget_host(machine.instance.uuid)
        return removed


def forget_domain(machine: Handle) -> None:
    """Remove a domain with its NVRAM, but keep its volumes: the next create handles them."""
    with shielded():
        lifecycle.destroy(machine.domain)
        lifecycle.undefine(machine.domain)
        forget_host(machine.instance.uuid)


def _remove_half_base(pool: Pool, instance: Instance) -> list[str]:
    """Remove the base that a killed create was uploading; return its name."""
    if instance.record.creator is None:
        return []
    image = instance.record.image
    size = image.get("size", "")
    if not size.isdigit():
        return []
    return remove_if_abandoned(pool, image.get("digest", ""), int(size))


def remove_temporary(connection: Connection, name: str, *, uuid: str) -> None:
    """Remove a temporary machine; do nothing if it does not exist.

    A machine with the same name but another *uuid* is kept.
    """
    try:
        machine = find_machine(connection, name)
        if machine.instance.uuid == uuid:
            delete_domain(machine)
    except NotFound:
        return


def remove_taken(connection: Connection) -> list[Instance]:
    """Remove the machines that this process has taken from pools and not kept; return them."""
    found = [
        one
        for one in instances(connection)
        if one.record.member is not None and one.record.creator == myself()
    ]
    for one in found:
        remove_temporary(connection, one.name, uuid=one.uuid)
    return found


def sweep(connection: Connection, progress: Progress, prefix: str | None = None) -> None:
    """Remove what killed processes left: machines of pools, and those named *prefix*…."""
    for instance in instances(connection):
        temporary = prefix is not None and instance.name.startswith(prefix)
        if (temporary or instance.record.member is not None) and is_left_behind(instance):
            progress.say(f"removing {instance.name}, which an interrupted armvm left behind")
            remove_temporary(connection, instance.name, uuid=instance.uuid)
