"""Change a machine's disk, memory and vCPUs, at once where possible, and report each effect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base.errors import ArmvmError, ConfigError, StorageError, UsageError
from armvm.base.progress import Progress
from armvm.base.result import Doc
from armvm.guest.agents.grow_script import grow_command, read_growth
from armvm.host import facts
from armvm.host.agent import agent
from armvm.host.connection import Connection, Volume
from armvm.host.domain import resize as resizing
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance, observe, set_record
from armvm.host.storage import pools, volumes
from armvm.provision.machine.unfinished import assert_whole
from armvm.settings.machine import MAX_CPUS, MAX_MEMORY_MIB, MIN_MEMORY_MIB
from armvm.settings.size import MAX_DISK, size_label

#: Timeout for a guest to grow its file system under KVM, in seconds; ten times that if emulated.
_GROW_TIMEOUT = 60.0
NEXT_START = "takes effect at the next start (stop, then start; a restart is not enough)"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A changed setting of a machine."""

    what: Annotated[str, Doc("What was changed.", enum=["disk", "memory_mib", "cpus"])]
    before: Annotated[int, Doc("The old value: bytes, MiB or a number of vCPUs.", minimum=0)]
    after: Annotated[int, Doc("The new value, in the same unit.", minimum=1)]
    in_effect: Annotated[
        bool,
        Doc("Whether it applies now; memory and vCPUs of a stopped machine apply at its start."),
    ]
    note: Annotated[str, Doc("What the guest did, or still has to do.")]


def resize(
    machine: Handle,
    *,
    disk: int | None,
    memory_mib: int | None,
    cpus: int | None,
    progress: Progress,
) -> list[Change]:
    """Change the settings that are not None (*disk* in bytes); return the result of each change.

    Checks everything before changing anything. Raises UsageError if all are None, ConfigError
    for an invalid value, Conflict for a machine that is being created.
    """
    if disk is memory_mib is cpus is None:
        raise UsageError(
            "--disk, --mem or --cpus is required", hint="example: armvm resize NAME --mem 4G"
        )
    assert_whole(machine.instance)
    volume = None
    if disk is not None:
        volume = _disk_of(machine.connection, machine.instance)
        _check_disk(machine.instance, volumes.capacity(volume), disk)
    _check_rest(machine.connection, memory_mib, cpus)
    done = []
    if volume is not None and disk is not None:
        with progress.task(f"growing the disk of {machine.name}"):
            done.append(_grow(machine, volume, disk))
    if memory_mib is not None:
        resizing.set_memory(machine.domain, memory_mib)
        _keep(machine, memory_mib=memory_mib)
        why = resizing.balloon(machine.domain, memory_mib) if machine.running else None
        done.append(
            _told("memory_mib", machine.instance.memory_mib, memory_mib, machine.instance, why)
        )
    if cpus is not None:
        resizing.set_cpus(machine.domain, cpus)
        _keep(machine, cpus=cpus)
        why = resizing.plug_cpus(machine.domain, cpus) if machine.running else None
        done.append(_told("cpus", machine.instance.cpus, cpus, machine.instance, why))
    return done


def _keep(machine: Handle, **changed: int) -> None:
    """Record a change at once: the next one may fail."""
    record = observe(machine.domain).record
    set_record(machine.domain, replace(record, settings={**record.settings, **changed}))


def _disk_of(connection: Connection, instance: Instance) -> Volume:
    pool = pools.find_pool(connection, instance.record.pool)
    volume = volumes.find_volume(pool, Path(instance.overlay or "").name) if pool else None
    if volume is None:
        raise StorageError(f"disk of {instance.name} not found in the pool {instance.record.pool}")
    return volume


def _check_disk(instance: Instance, now: int, wanted: int) -> None:
    if wanted < now:
        raise ConfigError(
            f"cannot shrink the disk of {instance.name} from {size_label(now)} to "
            f"{size_label(wanted)}: partitions and data beyond that size would be lost",
            hint="create a machine with a smaller disk and copy your files there",
        )
    if wanted > MAX_DISK:
        raise ConfigError(
            f"a disk of {size_label(wanted)} is out of range "
            f"({size_label(now)} to {size_label(MAX_DISK)})",
            hint="examples for --disk: 20G, 1T",
        )


def _check_rest(connection: Connection, memory_mib: int | None, cpus: int | None) -> None:
    if memory_mib is not None and not MIN_MEMORY_MIB <= memory_mib <= MAX_MEMORY_MIB:
        raise ConfigError(
            f"{memory_mib} MiB of memory is out of range "
            f"({MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB)",
            hint="examples for --mem: 2048, 4G",
        )
    if cpus is None:
        return
    most = min(MAX_CPUS, facts.observe(connection).max_cpus)
    if not 1 <= cpus <= most:
        raise ConfigError(f"{cpus} vCPUs is out of range (1 to {most} on this host)")


def _grow(machine: Handle, volume: Volume, size: int) -> Change:
    before = volumes.capacity(volume)
    if machine.running:
        if size > before:
            resizing.grow_live(machine.domain, size)
        _keep(machine, disk=size)
        note = _grow_in_guest(machine)
    else:
        if size > before:
            resizing.grow_volume(volume, size)
        _keep(machine, disk=size)
        note = "cloud-init grows the root file system at the next boot"
    return Change(what="disk", before=before, after=size, in_effect=True, note=note)


def _grow_in_guest(machine: Handle) -> str:
    """Grow the root file system of a running guest; return the result in words."""
    later = "; cloud-init tries again at the next boot"
    if not agent.connected(machine.domain):
        return f"the guest agent does not answer: the root file system did not grow{later}"
    timeout = _GROW_TIMEOUT * machine.patience
    try:
        grown = read_growth(agent.output(machine.domain, grow_command(), timeout=timeout))
    except ArmvmError as error:
        why = (error.detail or error.message).splitlines()[-1]
        return f"the root file system did not grow: {why}{later}"
    if grown is None:
        return f"the guest did not report whether its root file system grew{later}"
    sizes = [f"{count / (1 << 30):.1f} GiB" for count in grown]
    return f"the root file system grew from {sizes[0]} to {sizes[1]}"


def _told(what: str, before: int, after: int, instance: Instance, why: str | None) -> Change:
    if not instance.running:
        note = "takes effect at the next start"
    elif why is None:
        note = "in effect now"
    else:
        note = f"{NEXT_START}: {why}"
    return Change(
        what=what,
        before=before,
        after=after,
        in_effect=instance.running and why is None,
        note=note,
    )
