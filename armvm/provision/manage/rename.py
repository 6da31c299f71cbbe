"""Rename a stopped machine: domain, volumes, UEFI variables, address, seed.

libvirt only renames the domain. armvm creates everything under the new name before it removes
anything under the old one, so that a failure can be undone. It renames the domain first, because
libvirt decides whether the new name is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from armvm.base.errors import ArmvmError, Conflict, DomainError
from armvm.base.progress import Progress
from armvm.base.signals import shielded
from armvm.guest.cloudinit.reseed import renamed
from armvm.guest.cloudinit.seed import read_seed, seed_image
from armvm.host.connection import Connection, Pool, is_local, uri_of
from armvm.host.domain import lifecycle
from armvm.host.domain.copied_xml import point_at
from armvm.host.domain.disks import disks
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance, domain_exists, inactive_xml
from armvm.host.storage import nvram, pools, transfer, volumes
from armvm.host.storage.block_copy import has_saved_state, snapshots
from armvm.host.storage.volume_copy import link_or_duplicate
from armvm.host.xml import parse, to_text
from armvm.provision.access import ssh_config
from armvm.provision.machine import network
from armvm.provision.machine.own_disk import (
    assert_own_disk,
    clear_volumes,
    delete_machine_volumes,
    left_alone,
    own_volumes,
)
from armvm.provision.machine.undo import Undo
from armvm.provision.machine.unfinished import assert_whole
from armvm.settings.names import check_new_name

_SEED = ".seed.iso"


def rename(machine: Handle, new: str, progress: Progress) -> None:
    """Rename a stopped machine to *new*, with everything that has its name.

    Its identity stays: UUID, addresses, host key, and so known hosts. The guest gets its new host
    name at the next boot. On failure the machine stays unchanged. Raises Conflict if the machine
    is running or is started meanwhile, or the name already exists, StorageError.
    """
    old = machine.name
    check_new_name(new)
    _assert_may(machine, new)
    pool = pools.need_pool(machine.connection, machine.record.pool, old)
    before = nvram.place(machine.connection, parse(inactive_xml(machine.domain)), old)
    with Undo(progress) as undo, progress.task(f"renaming {old} to {new}"):
        with shielded():
            lifecycle.rename(machine.domain, new)
            undo.add(lambda: _rename_back(machine, new))
        # The name is ours now: existing volumes of that name belong to a machine that is gone.
        clear_volumes(machine.connection, pool, new)
        undo.add(lambda: delete_machine_volumes(pool, new))
        was = inactive_xml(machine.domain)
        document = parse(was)
        disk = volumes.need_volume(pool, volumes.volume_names(old)["overlay"])
        with left_alone(machine, disk):
            paths = _volumes(machine.connection, pool, machine.instance, new)
        point_at(document, paths)
        if before is not None and str(before) not in paths:
            nvram.carry(machine.connection, pool, document, before, new)
        undo.add(lambda: network.rename(machine.connection, machine.instance, new, old))
        network.rename(machine.connection, machine.instance, old, new)
        undo.add(lambda: lifecycle.define(machine.connection, was, new))
        lifecycle.define(machine.connection, to_text(document), new)
        _assert_not_started(machine, paths)
    with shielded():
        delete_machine_volumes(pool, old)
        if before is not None and str(before) not in paths:
            nvram.forget(machine.connection, before)
    ssh_config.renamed(machine.connection, machine.again().instance, progress)


def _volumes(connection: Connection, pool: Pool, instance: Instance, new: str) -> dict[str, str]:
    """Create a machine's volumes under the new name too; return the new path for each old one."""
    local = is_local(uri_of(connection))
    directory = PurePosixPath(pools.pool_path(pool))
    paths = {}
    for suffix, volume in own_volumes(pool, instance.name, called=new).items():
        paths[str(directory / (instance.name + suffix))] = str(directory / (new + suffix))
        if suffix == _SEED:
            files = read_seed(transfer.read(connection, volume))
            seed = seed_image(renamed(files, instance.name, new))
            volumes.write_volume(connection, pool, new + suffix, seed)
        else:
            link_or_duplicate(
                connection, pool, new + suffix, volume, lambda _done: None, local=local
            )
    # The definition names the log even before it exists.
    names = volumes.volume_names(instance.name), volumes.volume_names(new)
    paths[str(directory / names[0]["serial_log"])] = str(directory / names[1]["serial_log"])
    return paths


def _assert_not_started(machine: Handle, paths: Mapping[str, str]) -> None:
    """Raise Conflict if the machine runs on its old files, because it was started meanwhile."""
    if any(one.file in paths for one in disks(machine.domain, live=True)):
        raise Conflict(
            f"{machine.name} was started while armvm renamed it",
            hint="leave the machine off, and try again",
        )


def _rename_back(machine: Handle, new: str) -> None:
    """Give a machine its old name again, which libvirt refuses while it runs."""
    try:
        lifecycle.rename(machine.domain, machine.name)
    except ArmvmError as error:
        raise DomainError(
            f"{machine.name} is called {new} now ({error.message}); stop it, then rename it: "
            f"virsh domrename {new} {machine.name}"
        ) from error


def _assert_may(machine: Handle, new: str) -> None:
    assert_whole(machine.instance)
    machine.require_off(": only a stopped machine can be renamed")
    assert_own_disk(machine.instance)
    if domain_exists(machine.connection, new):
        raise Conflict(f"{new} already exists", hint="choose another name")
    if snapshots(machine.domain):
        raise Conflict(
            f"{machine.name} has libvirt snapshots, which refer to its files by name",
            hint=f"delete them first; list them with: virsh snapshot-list {machine.name}",
        )
    if has_saved_state(machine.domain):
        raise Conflict(
            f"{machine.name} has a saved state, which refers to its files by name",
            hint=f"start it, or remove the state: virsh managedsave-remove {machine.name}",
        )
